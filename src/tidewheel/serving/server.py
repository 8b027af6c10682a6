"""`python -m tidewheel.serving`: one process, one bundle, every byte of it checked before the first request."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from tidewheel.errors import TidewheelError

if TYPE_CHECKING:
    from tidewheel.ranker.bundle import OpenBundle
    from tidewheel.serving.hybrid_log import HybridLog


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 3 for a bundle that is not what its digest promises."""
    options = _parser().parse_args(arguments)
    try:
        return _serve(options)
    except TidewheelError as error:
        print(f"tidewheel serving: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"tidewheel serving: cannot listen on {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tidewheel.serving", description="Serve one bundle over HTTP.")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle; its name is the digest")
    parser.add_argument("--digest", default=None, help="expected digest, where the folder has another name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference")
    parser.add_argument("--announce-file", type=Path, default=None, help="write url, pid and bundle there once ready")
    parser.add_argument("--log", type=Path, default=None, help="write the hybrid log there (docs/hybrid-log.md)")
    parser.add_argument("--log-seconds", type=float, default=60.0, help="a segment holds at most so many seconds of rows")
    parser.add_argument("--exit-on-stdin-eof", action="store_true", help="stop when whoever started this is gone")
    return parser


def _serve(options: argparse.Namespace) -> int:
    import uvicorn

    from tidewheel.ranker.bundle import open_bundle
    from tidewheel.serving.app import ServingApp

    bundle = open_bundle(options.bundle.absolute(), options.digest)
    log = _log(options, bundle)
    app = ServingApp(bundle, options.threads, log)
    app.warm_up()
    signal.signal(signal.SIGTERM, _leave)  # uvicorn raises it again when it is done; the log is written after that
    with log or nullcontext(), socket.create_server((options.host, options.port), backlog=512) as listener:
        if options.exit_on_stdin_eof:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        # asyncio does so only for sockets made with an explicit protocol; without, every answer waits 40 ms for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = listener.getsockname()[:2]
        document = {"url": f"http://{host}:{port}", "pid": os.getpid(), "bundle": app.bundle.digest}
        _announce(document, options.announce_file)
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _log(options: argparse.Namespace, bundle: OpenBundle) -> HybridLog | None:
    from tidewheel.serving.hybrid_log import HybridLog, LogLimits

    if options.log is None:
        return None
    limits = LogLimits(segment_seconds=options.log_seconds)
    return HybridLog(options.log, bundle.digest, bundle.manifest.features, bundle.manifest.labels, limits=limits)


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
