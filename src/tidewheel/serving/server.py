"""`python -m tidewheel.serving`: one process, every byte of its bundles checked before they answer the first request."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from tidewheel.errors import ConfigError, TidewheelError
from tidewheel.serving.gate import Limits

if TYPE_CHECKING:
    from tidewheel.serving.following import Following
    from tidewheel.serving.versions import Opening, Version


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 3 for a bundle that is not what its digest or manifest promises."""
    options = _parser().parse_args(arguments)
    try:
        return _serve(options)
    except TidewheelError as error:
        print(f"tidewheel serving: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"tidewheel serving: cannot listen on {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tidewheel.serving", description="Serve bundles over HTTP.")
    add = parser.add_argument
    add("--bundle", type=Path, default=None, help="folder of the bundle; its name is the digest")
    add("--digest", default=None, help="expected digest, where the folder has another name")
    add("--follow", nargs=2, metavar=("STORE", "RECIPE"), default=None, help="follow the assignments of a recipe in a store")
    add("--cache", type=Path, default=None, help="where bundles of a bucket are kept on this machine")
    add("--poll-seconds", type=_positive, default=1.0, help="how often the store is asked for another assignment")
    add("--max-versions", type=_count, default=3, help="bundles that serve at once at most")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=int(os.environ.get("PORT") or 8080), help="0 takes a free one; default: $PORT or 8080")
    add("--model-name", default="", help="another name for the ranker in addresses, e.g. that of a KServe InferenceService")
    add("--threads", type=_count, default=1, help="threads of one inference")
    add("--announce-file", type=Path, default=None, help="write url, pid and bundle there once ready")
    add("--log", type=Path, default=None, help="write the hybrid log there (docs/hybrid-log.md)")
    add("--log-seconds", type=float, default=60.0, help="a segment holds at most so many seconds of rows")
    add("--drain-seconds", type=float, default=0.0, help="after SIGTERM: not ready, but answering, for so long")
    add("--exit-on-stdin-eof", action="store_true", help="stop when whoever started this is gone")
    limits = parser.add_argument_group("limits (docs/serving.md)")
    for name in ("max_body_bytes", "max_candidates", "max_waiting", "max_waiting_bytes", "max_connections"):
        limits.add_argument("--" + name.replace("_", "-"), type=_count, default=getattr(Limits, name))
    for name in ("header_seconds", "body_seconds", "wait_seconds", "idle_seconds"):
        limits.add_argument("--" + name.replace("_", "-"), type=_positive, default=getattr(Limits, name))
    return parser


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return int(text)


def _positive(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0")
    return float(text)


def _serve(options: argparse.Namespace) -> int:
    from tidewheel.serving.app import ServingApp
    from tidewheel.serving.loop import serve
    from tidewheel.serving.versions import Table

    following = _following(options)
    if following is not None:
        table = following.first(None if options.bundle is None else lambda: _version(options))
    else:
        version = _version(options)
        table = Table({version.digest: version})
    app = ServingApp(table, _limits(options))
    signal.signal(signal.SIGTERM, _leave)  # uvicorn raises it again when it is done; the log is written after that
    _raise_file_limit(app.limits.max_connections)
    with ExitStack() as stack:
        stack.callback(app.close)
        listener = stack.enter_context(socket.create_server((options.host, options.port), backlog=512))
        if options.exit_on_stdin_eof:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        # asyncio does so only for sockets made with an explicit protocol; without, every answer waits 40 ms for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = listener.getsockname()[:2]
        document = {"url": f"http://{host}:{port}", "pid": os.getpid(), "bundle": table.main.digest}
        _announce(document, options.announce_file)
        serve(app, listener, options.drain_seconds, following, options.poll_seconds)
    return 0


def _limits(options: argparse.Namespace) -> Limits:
    return Limits(
        max_body_bytes=options.max_body_bytes,
        max_candidates=options.max_candidates,
        max_waiting=options.max_waiting,
        max_waiting_bytes=options.max_waiting_bytes,
        max_connections=options.max_connections,
        header_seconds=options.header_seconds,
        body_seconds=options.body_seconds,
        wait_seconds=options.wait_seconds,
        idle_seconds=options.idle_seconds,
    )


def _following(options: argparse.Namespace) -> Following | None:
    from tidewheel.serving.following import Following
    from tidewheel.store import Store

    if options.follow is None:
        if options.bundle is None:
            raise ConfigError("nothing to serve; name a --bundle, or a STORE and a RECIPE to --follow")
        return None
    store_url, recipe = options.follow
    return Following(Store.open(store_url, options.cache), recipe, _opening(options), options.max_versions)


def _opening(options: argparse.Namespace) -> Opening:
    from tidewheel.serving.hybrid_log import LogLimits
    from tidewheel.serving.versions import Opening

    limits = LogLimits(segment_seconds=options.log_seconds)
    return Opening(threads=options.threads, model_name=options.model_name, log=options.log, log_limits=limits)


def _version(options: argparse.Namespace) -> Version:
    from tidewheel.ranker.bundle import open_bundle
    from tidewheel.serving.versions import Version

    return Version(open_bundle(options.bundle.absolute(), options.digest), _opening(options))


def _raise_file_limit(connections: int) -> None:
    """Connections are files, beside some that the process needs anyway."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one may not cut short what the first one began
    raise SystemExit(0)


def _announce(document: dict[str, object], path: Path | None) -> None:
    """Connections queue from here on: the socket listens and the models are warm."""
    text = json.dumps(document)
    if path is None:
        print(text, flush=True)
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _end_with_parent() -> None:
    """The other end of stdin is held by the process that started this one; its end, however violent, closes it."""
    while os.read(sys.stdin.fileno(), 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
