"""Real S3-compatible servers, each in a process of its own: moto, and SeaweedFS as clusters run it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import TRIES, Server, free_ports

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address=sys.argv[1], port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""
WEED = Path(sysconfig.get_path("scripts")) / "weed"
PARTS = ("master", "volume", "filer", "s3", "admin")  # of SeaweedFS, each with a port for HTTP and one for gRPC
UNUSED = ("-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-volume.preStopSeconds=0")
READY = "All enabled components are running"


@contextmanager
def s3_server(address: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """The variables by which clients find moto's, while it runs."""
    command = [sys.executable, "-c", MOTO, address]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        host, port = server.stdout.readline().split()
        try:
            yield _variables(host, int(port))
        finally:
            server.stdin.close()
            server.wait(60)


@contextmanager
def seaweedfs(bucket: str, address: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """The variables by which clients find a SeaweedFS that has this one bucket, while it runs.

    A test that wants a place of its own takes a prefix: each bucket gets volumes of its own, and there are few.
    """
    with tempfile.TemporaryDirectory(prefix="weed-") as folder:
        server, port = _weed(Path(folder), bucket, address)
        try:
            yield _variables(address, port)
        finally:
            server.end()  # in order: it takes its sockets out of /tmp


def _weed(folder: Path, bucket: str, address: str) -> tuple[Server, int]:
    """A server that is ready, and the port of its S3. It ends at once where a port was taken meanwhile."""
    names = [f"{part}.{port}" for part in PARTS for port in ("port", "port.grpc")]
    log = folder / "log"
    for _ in range(TRIES):
        ports = dict(zip(names, free_ports(len(names), address), strict=True))
        options = [f"-{name}={port}" for name, port in ports.items()]
        sockets = [f"-{part}.localSocket={folder / part}.sock" for part in ("filer", "s3")]
        places = [f"-dir={folder}", f"-ip={address}", f"-ip.bind={address}", f"-bucket={bucket}"]
        command = [WEED, f"-logdir={folder}", "mini", *places, *UNUSED, *options, *sockets]
        server = Server(command, {"HOME": str(folder), **KEYS}, READY, log)  # nobody's own settings
        if server.is_ready:
            return server, ports["s3.port"]
    raise AssertionError(f"SeaweedFS ended {TRIES} times: {log.read_text(encoding='utf-8')[-1000:]}")


def _variables(host: str, port: int) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1", **KEYS}
