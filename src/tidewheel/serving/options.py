"""The command line of `python -m tidewheel.serving`: what is asked for, and whether it can be meant."""

from __future__ import annotations

import argparse
import os
import string
from dataclasses import asdict
from pathlib import Path

from tidewheel.errors import ConfigError
from tidewheel.serving.gate import Limits

DIGEST_LENGTH = 64
_FIXED = ("max_event_bytes", "max_header_bytes")  # limits that no option sets


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says.

    Raises:
        ConfigError: it asks for nothing, or for two things at once.
        SystemExit: an option is unknown or has no such value; argparse has said so.
    """
    options = parser().parse_args(arguments)
    if fault := _fault(options):
        raise ConfigError(fault)
    return options


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tidewheel.serving", description="Serve bundles over HTTP.")
    add = parser.add_argument
    add("--bundle", type=Path, default=None, help="folder of the bundle; its name is the digest")
    add("--store", default=None, help="serve the bundle --digest of this store: a local folder or s3://bucket/prefix")
    add("--digest", default=None, help="which bundle of --store; with --bundle: the digest, where the folder has another name")
    add("--follow", nargs=2, metavar=("STORE", "RECIPE"), default=None, help="follow the assignments of a recipe in a store")
    add("--cache", type=Path, default=None, help="where bundles of a bucket are kept on this machine")
    add("--poll-seconds", type=_positive, default=1.0, help="how often the store is asked for another assignment")
    add("--max-versions", type=_count, default=3, help="bundles that serve at once at most")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=int(os.environ.get("PORT") or 8080), help="0 takes a free one; default: $PORT or 8080")
    add("--model-name", default="", help="another name for the ranker in addresses, e.g. that of a KServe InferenceService")
    add("--threads", type=_count, default=1, help="threads of one inference")
    add("--processes", type=_count, default=1, help="processes that answer, a core for each (docs/serving.md)")
    add("--sibling", nargs=3, default=None, help=argparse.SUPPRESS)  # by processes.py: listening socket, folder, number
    add("--announce-file", type=Path, default=None, help="write url, pid and bundle there once ready")
    add("--log", type=_folder, default=None, help="write the hybrid log into this folder (docs/hybrid-log.md)")
    add("--log-seconds", type=float, default=60.0, help="a segment holds at most so many seconds of rows")
    add("--drain-seconds", type=_seconds, default=0.0, help="after SIGTERM: not ready, but answering, for so long")
    add(
        "--busy-poll-seconds", type=_seconds, default=0.0, help="keep a core awake so long after each request (docs/serving.md)"
    )
    add("--exit-on-stdin-eof", action="store_true", help="stop when whoever started this is gone")
    group = parser.add_argument_group("limits (docs/serving.md)")
    for name, default in _limits().items():
        kind = _count if isinstance(default, int) else _positive
        group.add_argument("--" + name.replace("_", "-"), type=kind, default=default)
    return parser


def limits_of(options: argparse.Namespace) -> Limits:
    return Limits(**{name: getattr(options, name) for name in _limits()})


def _limits() -> dict[str, float]:
    """Limits that are options, and their defaults."""
    return {name: value for name, value in asdict(Limits()).items() if name not in _FIXED}


def _fault(options: argparse.Namespace) -> str | None:
    """Why these options cannot be meant, or None."""
    named = [name for name in ("--bundle", "--store", "--follow") if getattr(options, name[2:]) is not None]
    if not named:
        return "nothing to serve; name a --bundle, a --store and a --digest, or a STORE and a RECIPE to --follow"
    if "--store" in named and len(named) > 1:
        return f"{' and '.join(named)} contradict each other: a --store's bundle is served for good; choose one"
    if options.store is None:
        if options.digest is not None and options.bundle is None:
            return "--digest: goes with a --store or a --bundle; whoever follows is told what to serve"
        return None
    if not options.store.strip():
        return "--store: is empty; expected a local folder or s3://bucket/prefix"
    if options.digest is None:
        return "--store: needs a --digest, the bundle to serve"
    if not options.digest.strip():
        return "--digest: is empty, so no bundle was released yet; release one, and start this server with its digest"
    if len(options.digest) != DIGEST_LENGTH or not set(options.digest) <= set(string.hexdigits.lower()):
        return f"--digest {options.digest[:80]}: is no digest of a bundle; expected {DIGEST_LENGTH} digits 0-9 a-f"
    return None


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return int(text)


def _positive(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0")
    return float(text)


def _seconds(text: str) -> float:
    if not 0 <= float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected 0 or more")
    return float(text)


def _folder(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text}: expected a folder; a bucket cannot rename, and days are closed by renaming")
    return Path(text)
