"""Every object of the example values, to the last line: a diff here is what a cluster would see."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.helm.chart import needs_helm
from tests.helm.gpu_node_pools.chart import CASES, manifest

GOLDEN = Path(__file__).parent / "golden"


@needs_helm
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_the_rendering_is_the_golden_one(case: Path, golden: bool) -> None:
    text = manifest(yaml.safe_load(case.read_text(encoding="utf-8")), "--kube-version", "1.34.0")
    path = GOLDEN / f"{case.stem.removesuffix('-values')}.yaml"
    if golden:
        path.write_text(text, encoding="utf-8")

    assert path.read_text(encoding="utf-8") == text, "make golden; nodes of a pool may be replaced if its template changed"


def test_no_golden_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == {case.stem.removesuffix("-values") for case in CASES}
