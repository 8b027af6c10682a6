"""The same scorer behind LitServe, Ray Serve and MLflow, in processes of the peers' environment.

    python -m bench.peer_serving litserve --bundle DIR --port PORT --workers 2      (bench/serving.py starts it)

Each peer as its documentation shows it, with so many workers or replicas (LitServe: as many processes for HTTP too), without
access logs and telemetry.
LitServe and Ray Serve take columns by name, MLflow its data frame. They end when stdin does.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from tidewheel.ranker.bundle import open_bundle
from tidewheel.ranker.scorer import Scorer

BUNDLE = "BENCH_BUNDLE"  # where the processes that a peer starts find the bundle
Document = dict[str, list[Any]]


def scorer() -> Scorer:
    return Scorer(open_bundle(Path(os.environ[BUNDLE])))


def columns_of(document: Document) -> dict[str, np.ndarray]:
    return {name: np.array(values, dtype=object if type(values[0]) is str else None) for name, values in document.items()}


def end_with_stdin() -> None:
    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            continue
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


def litserve(port: int, workers: int) -> None:
    from litserve import LitServer

    from bench.peer_litserve import Ranker

    end_with_stdin()
    server = LitServer(Ranker(), accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, num_api_servers=workers, log_level="warning", generate_client_file=False)


def ray(port: int, workers: int) -> None:
    import ray
    from ray import serve
    from starlette.requests import Request

    @serve.deployment(num_replicas=workers, max_ongoing_requests=100, logging_config={"enable_access_log": False})
    class Ranker:
        def __init__(self) -> None:
            self.scorer = scorer()

        async def __call__(self, request: Request) -> dict[str, list[float]]:
            scores = self.scorer.score(columns_of(await request.json()))
            return {label: values.tolist() for label, values in scores.items()}

    ray.init(num_cpus=max(2, workers), include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False})
    serve.run(Ranker.bind(), route_prefix="/predict")
    while os.read(sys.stdin.fileno(), 4096):
        continue
    serve.shutdown()
    ray.shutdown()


def mlflow(port: int, workers: int) -> None:
    """`mlflow models serve`, of a pyfunc that is this file."""
    import tempfile

    from mlflow.pyfunc import save_model

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save_model(model, python_model=str(Path(__file__).with_name("peer_mlflow.py")), pip_requirements=[])
        command = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "-m", str(model)]
        command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
        server = subprocess.Popen(command, start_new_session=True)
        while os.read(sys.stdin.fileno(), 4096):
            continue
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=("litserve", "ray", "mlflow"))
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    os.environ[BUNDLE] = str(options.bundle)
    {"litserve": litserve, "ray": ray, "mlflow": mlflow}[options.peer](options.port, options.workers)


if __name__ == "__main__":
    main()
