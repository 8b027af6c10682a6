"""Spark with two executors gives the rows and digests of Spark in one process, on the real log."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "kuairand_pure_std"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java, which is not here")
@pytest.mark.skipif(not DATA.is_dir(), reason="KuaiRand is not beside this checkout (../shared/data/kuairand_pure_std)")
def test_two_executors_write_the_files_of_one_process() -> None:
    command = [sys.executable, "-m", "bench.executors", "--data", str(DATA)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    files = [line for line in ended.stdout.splitlines() if ".parquet" in line]
    assert len(files) >= 8
    assert all("the same on local-cluster[2,1,1024]" in line for line in files)
