"""The manifests as tests see them: what kustomize makes of an overlay."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
KUBECTL = os.environ.get("KUBECTL") or shutil.which("kubectl") or ""
needs_kubectl = pytest.mark.skipif(not KUBECTL, reason="no kubectl: set $KUBECTL or put it on the PATH")


def built(folder: Path) -> str:
    """What `kubectl kustomize` writes of a folder."""
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(overlay: str) -> list[dict[str, Any]]:
    """Every object of an overlay of the repository."""
    return list(yaml.safe_load_all(built(MANIFESTS / "overlays" / overlay)))


def named(found: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind, by name."""
    return {each["metadata"]["name"]: each for each in found if each["kind"] == kind}


def moved(overlay: str, namespace: str, folder: Path, *components: str) -> Path:
    """A copy of an overlay that says another namespace, and takes components: what a team does with it."""
    shutil.copytree(MANIFESTS, folder / "manifests")
    copy = folder / "manifests" / "overlays" / overlay
    transformer = yaml.safe_load((copy / "namespace.yaml").read_text(encoding="utf-8"))
    transformer["metadata"]["namespace"] = namespace
    (copy / "namespace.yaml").write_text(yaml.safe_dump(transformer), encoding="utf-8")
    kustomization = yaml.safe_load((copy / "kustomization.yaml").read_text(encoding="utf-8"))
    kustomization["components"] = [f"../../components/{each}" for each in components]
    (copy / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    return copy
