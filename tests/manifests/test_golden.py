"""Every object of every overlay, to the last line, a file a kind: a diff here is what a cluster would see."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from tests.manifests.overlay import MANIFESTS, OVERLAYS, built, needs_kubectl

GOLDEN = Path(__file__).parent / "golden"


def by_kind(text: str) -> dict[str, str]:
    """Name of the golden file -> the objects of a kind, as kustomize writes them."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for document in text.split("\n---\n"):
        kinds[yaml.safe_load(document)["kind"].lower()].append(document.strip("\n") + "\n")
    return {f"{kind}.yaml": "---\n".join(documents) for kind, documents in kinds.items()}


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_built_is_the_golden_one(overlay: str, golden: bool) -> None:
    found = by_kind(built(MANIFESTS / "overlays" / overlay))
    folder = GOLDEN / overlay
    if golden:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, text in found.items():
            (folder / name).write_text(text, encoding="utf-8")

    known = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert known == found, "pytest tests/manifests --golden; read the diff as who may do more now"


def test_no_golden_is_left_over() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir()) == OVERLAYS
