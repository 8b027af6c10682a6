"""What import-linter cannot see: what a module pulls in when it is imported, and which door a system has."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "tidewheel"
HEAVY = ("torch", "ray", "pyspark", "mlflow", "great_expectations", "pandas", "kfp", "kfp_server_api", "onnxruntime")

# System -> the places that may import it (DESIGN: one door per system; docs/decisions/0002 for onnxruntime).
DOORS = {
    "pyspark": ("logs", "sampling", "quality/spark.py"),
    "pysail": ("logs",),
    "ray": ("training/distributed.py",),
    "great_expectations": ("quality/expectations.py",),
    "mlflow": ("registry/mlflow.py",),
    "onnxruntime": ("ranker/scorer.py",),
    "kfp": ("cluster",),
    "kubernetes": ("cluster", "pods", "rollout/workload.py", "retrains/api.py"),
    "kfp_server_api": ("cluster/kubeflow.py",),
    "torch": ("ranker", "training"),
    "matplotlib": ("evaluation",),
    "s3fs": ("store/objects.py",),
    "tenacity": ("store/objects.py",),
}


def imported_roots(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("system", DOORS)
def test_a_system_is_imported_only_through_its_door(system: str) -> None:
    doors = DOORS[system]
    users = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if system in imported_roots(path)}

    strangers = {user for user in users if not any(user == door or user.startswith(door + "/") for door in doors)}

    assert not strangers
    assert users, f"nobody imports {system}: is its door still right?"


@pytest.mark.parametrize(
    "module",
    ["tidewheel.cli.app", "tidewheel.contracts.recipe", "tidewheel.contracts.bundle", "tidewheel.store", "tidewheel.steps.job"],
)
def test_importing_it_pulls_in_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == ""


def test_every_package_of_an_island_imports_without_its_engine() -> None:
    islands = [path.parent.name for path in SOURCE.glob("*/__init__.py")]
    code = f"import sys; [__import__('tidewheel.' + name) for name in {islands!r}]; print(*(set(sys.modules) & set({HEAVY!r})))"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == ""
