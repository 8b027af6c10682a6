"""The systems that the benches of the ranker compare: how each one's process is started and asked. See bench/peer_job.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.peer_job import Answer, Job
from bench.work import ROOT

OURS = "ours"
LIBRARIES = {"deepctr": "DeepCTR-Torch", "fuxictr": "FuxiCTR", "rechub": "torch-rechub"}
PEERS = ROOT / ".cache" / "peers"
INSTALL = f"uv venv {PEERS.relative_to(ROOT)} && uv pip install --python {PEERS.relative_to(ROOT)} -r bench/peers.txt"


class System:
    """A process that answers jobs, one at a time; what it prints is in `<name>.log` below `logs`."""

    def __init__(self, name: str, logs: Path, threads: int = 1) -> None:
        """Raises: SystemExit: the environment of the peers is not there."""
        python = Path(sys.executable) if name == OURS else PEERS / "bin" / "python"
        if not python.exists():
            sys.exit(f"{python}: no environment of the peers; expected one with bench/peers.txt. Make it: {INSTALL}")
        self.name, self._log = name, (logs / f"{name}.log").open("a")
        paths = f"{ROOT / 'src'}{os.pathsep}{ROOT}" if name == OURS else str(ROOT)
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
        environment |= {"https_proxy": "http://127.0.0.1:9"}  # a library that looks for a newer version of itself finds nobody
        answers, to_answer = os.pipe()
        self._answers = os.fdopen(answers)
        self._process = subprocess.Popen(
            [str(python), "-m", f"bench.peer_{name}", str(to_answer)],
            pass_fds=(to_answer,),
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            cwd=ROOT,
            env=environment,
            text=True,
        )
        os.close(to_answer)  # else no answer would ever end

    def ask(self, job: Job) -> Answer:
        """Raises: SystemExit: the process ended; its messages are in its log."""
        assert self._process.stdin is not None
        self._process.stdin.write(job.to_json() + "\n")
        self._process.stdin.flush()
        line = self._answers.readline()
        if not line:
            sys.exit(f"{self.name} ended with {self._process.wait()} on {job.to_json()}; its messages are in {self._log.name}")
        return Answer(**json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._answers.close()
        self._log.close()
