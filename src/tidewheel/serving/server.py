"""`python -m tidewheel.serving`: every byte of its bundles is checked before they answer the first request."""

from __future__ import annotations

import argparse
import gc
import resource
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from tidewheel.errors import ConfigError, TidewheelError
from tidewheel.serving.launch import BACKLOG, announce, bind, end_with_parent
from tidewheel.serving.options import limits_of, parse
from tidewheel.serving.processes import Processes

if TYPE_CHECKING:
    from tidewheel.serving.following import Following
    from tidewheel.serving.siblings import Siblings
    from tidewheel.serving.versions import Opening, Table, Version
    from tidewheel.store import Store

SWITCH_SECONDS = 0.0005  # after which a request gets the interpreter from the threads beside it; Python's default: 0.005


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 3 for a bundle that is not what its digest or manifest promises."""
    try:
        options = parse(arguments)
        if options.processes == 1:
            return _serve(options)
        return Processes(options, sys.argv[1:] if arguments is None else arguments).serve()
    except (TidewheelError, OSError) as error:
        print(f"tidewheel serving: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code if isinstance(error, TidewheelError) else 1


def _serve(options: argparse.Namespace) -> int:
    from tidewheel.serving.app import ServingApp
    from tidewheel.serving.loop import serve

    signal.signal(signal.SIGTERM, _leave)  # uvicorn raises it again when it is done; the log is written after that
    table, following = _first(options)
    app = ServingApp(table, limits_of(options), _siblings(options))
    _raise_file_limit(app.limits.max_connections)
    with ExitStack() as stack:
        stack.callback(app.close)
        if options.sibling is None:
            listener = stack.enter_context(bind(options.host, options.port))
        else:
            listener = stack.enter_context(socket.socket(fileno=int(options.sibling[0])))
        listener.listen(BACKLOG)
        if options.exit_on_stdin_eof:
            end_with_parent()
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()  # what is there now stays: no collection shall look at it while a request waits
        announce(listener, table.main.digest, options.announce_file if options.sibling is None else None)
        serve(app, listener, options.drain_seconds, following, options.poll_seconds, options.busy_poll_seconds)
    return 0


def _siblings(options: argparse.Namespace) -> Siblings | None:
    from tidewheel.serving.siblings import Siblings

    if options.sibling is None:
        return None
    _, folder, place = options.sibling
    return Siblings(Path(folder), int(place), sys.stdout.fileno())


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
