"""`python -m tidewheel.serving`: one process, every byte of its bundles checked before they answer the first request."""

from __future__ import annotations

import argparse
import gc
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
from tidewheel.serving.options import limits_of, parse

if TYPE_CHECKING:
    from tidewheel.serving.following import Following
    from tidewheel.serving.versions import Opening, Table, Version
    from tidewheel.store import Store

SWITCH_SECONDS = 0.0005  # after which a request gets the interpreter from the threads beside it; Python's default: 0.005


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 3 for a bundle that is not what its digest or manifest promises."""
    try:
        return _serve(parse(arguments))
    except (TidewheelError, OSError) as error:
        print(f"tidewheel serving: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code if isinstance(error, TidewheelError) else 1


def _serve(options: argparse.Namespace) -> int:
    from tidewheel.serving.app import ServingApp
    from tidewheel.serving.loop import serve

    signal.signal(signal.SIGTERM, _leave)  # uvicorn raises it again when it is done; the log is written after that
    table, following = _first(options)
    app = ServingApp(table, limits_of(options))
    _raise_file_limit(app.limits.max_connections)
    with ExitStack() as stack:
        stack.callback(app.close)
        listener = stack.enter_context(_listener(options.host, options.port))
        if options.exit_on_stdin_eof:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        host, port = listener.getsockname()[:2]
        document = {"url": f"http://{host}:{port}", "pid": os.getpid(), "bundle": table.main.digest}
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()  # what is there now stays: no collection shall look at it while a request waits
        _announce(document, options.announce_file)
        serve(app, listener, options.drain_seconds, following, options.poll_seconds, options.busy_poll_seconds)
    return 0


def _listener(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise TidewheelError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    # asyncio does so only for sockets made with an explicit protocol; without, every answer waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _first(options: argparse.Namespace) -> tuple[Table, Following | None]:
    """What serves from the start on, and who looks for what comes after it."""
    from tidewheel.serving.following import Following
    from tidewheel.serving.versions import Table

    if options.follow is None:
        version = _version(options)
        return Table({version.digest: version}), None
    url, recipe = options.follow
    following = Following(_store(url, options), recipe, _opening(options), options.max_versions)
    return following.first(None if options.bundle is None else lambda: _version(options)), following


def _store(url: str, options: argparse.Namespace) -> Store:
    from tidewheel.store import Store

    return Store.open(url, options.cache)


def _version(options: argparse.Namespace) -> Version:
    """The bundle that `--bundle` or `--store` and `--digest` name, every byte of it checked."""
    from tidewheel.ranker.bundle import load_bundle, open_bundle
    from tidewheel.serving.versions import Version

    if options.store is None:
        bundle = open_bundle(options.bundle.absolute(), options.digest)
    else:
        place = options.store.removeprefix("file://")
        if "://" not in place and not Path(place).is_dir():  # else it would be made
            raise ConfigError(f"store {options.store}: there is no such folder; expected one with bundles in it")
        bundle = load_bundle(_store(options.store, options), options.digest)
    return Version(bundle, _opening(options))


def _opening(options: argparse.Namespace) -> Opening:
    from tidewheel.serving.hybrid_log import LogLimits
    from tidewheel.serving.versions import Opening

    limits = LogLimits(segment_seconds=options.log_seconds)
    return Opening(threads=options.threads, model_name=options.model_name, log=options.log, log_limits=limits)


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
