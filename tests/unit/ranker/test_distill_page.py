"""docs/distill.md says what is so. Its command runs in tests/e2e/test_student.py."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tidewheel.cli.recipes import load_recipe
from tidewheel.contracts.learning import DistillConfig
from tidewheel.ranker import histogram, latency

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "distill.md").read_text(encoding="utf-8")


def test_the_recipe_fragment_is_accepted(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    document = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
    document["distill"] |= yaml.safe_load(found[1])["distill"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert (recipe.distill.calibration_slice, recipe.distill.calibrators) == ("surface", {"click": "histogram"})


def test_every_field_is_explained() -> None:
    assert [field for field in DistillConfig.model_fields if f"`{field}`" not in DOCUMENT] == []


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert f"at most {['', '', '', '', '', 'five'][histogram.MAX_BINS]} bins" in DOCUMENT
    assert f"each as by {histogram.PRIOR_ROWS:.0f} rows" in DOCUMENT
    assert f"requests of {latency.CANDIDATES} candidates" in DOCUMENT
    assert f"lower decile of {latency.RUNS} runs after {latency.WARM_UP} to warm up" in DOCUMENT
    assert latency.QUANTILE == 0.1
