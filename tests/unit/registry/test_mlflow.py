"""The real MLflow on a fresh database, through the child process that `deploy` uses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidewheel.errors import RetryableError
from tidewheel.registry import BackgroundRegistry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[BackgroundRegistry]:
    with BackgroundRegistry(f"sqlite:///{tmp_path / 'registry.db'}", "quickstart", str(tmp_path / "bundles")) as registry:
        yield registry


def test_versions_are_named_by_digest_and_aliases_follow(registry: BackgroundRegistry, tmp_path: Path) -> None:
    for digest in ("a" * 64, "b" * 64):
        (tmp_path / "bundles" / digest).mkdir(parents=True)
    registry.announce("a" * 64, {"tidewheel.run_id": "run-1"})  # does not wait
    assert registry.aliases() == {"candidate": "a" * 64}
    assert registry.register("a" * 64, {"tidewheel.verdict": "Successful"}) == "1"  # the same digest: the same version
    assert registry.register("b" * 64, {}) == "2"
    registry.point("production", "a" * 64)
    registry.point("production", "b" * 64)
    registry.point("candidate", None)
    assert registry.aliases() == {"production": "b" * 64}
    with pytest.raises(RetryableError, match="has no version"):
        registry.point("previous", "c" * 64)
    assert registry.aliases() == {"production": "b" * 64}  # still answers in step
    registry._child.kill()
    registry._child.wait()
    with pytest.raises(RetryableError, match="its process ended"):
        registry.aliases()
    registry._log.seek(0)
    assert registry._log.read() == b""  # quiet: no migrations, no warnings


def test_the_package_is_imported_without_mlflow() -> None:
    code = "import sys, tidewheel.registry; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
