"""The section `evaluate` of a recipe, as its page shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tidewheel.contracts.evaluation import Claim, ClaimKind, Compared, EvaluateConfig
from tidewheel.contracts.recipe import Recipe

PAGE = Path(__file__).parents[3] / "docs" / "evaluation.md"


def test_the_section_on_the_page_is_what_a_recipe_may_say(quickstart: Recipe) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    section = yaml.safe_load(block)["evaluate"]
    found = Recipe.model_validate(quickstart.model_dump(mode="json") | {"evaluate": section}).evaluate
    assert found.claims[1] == Claim(metric=Compared.NORMALIZED_ENTROPY, kind=ClaimKind.SUPERIOR, margin=0.0, labels=("click",))
    assert found.max_slice_drop == {Compared.AUC: 0.03, Compared.LOGLOSS: 0.02}


def test_a_claim_about_a_label_that_is_not_there_is_refused_by_name(quickstart: Recipe) -> None:
    section = {"claims": [{"metric": "auc", "margin": 0.01, "labels": ["clicks"]}]}
    with pytest.raises(ValueError, match=r"evaluate.claims names clicks; expected labels of this recipe: click"):
        Recipe.model_validate(quickstart.model_dump(mode="json") | {"evaluate": section})


@pytest.mark.parametrize("claims", [[], [{"metric": "auc", "margin": 0.01, "labels": ["click"]}]])
def test_no_gated_label_goes_without_a_comparison(quickstart: Recipe, claims: list[dict[str, object]]) -> None:
    with pytest.raises(ValueError, match=r"evaluate.claims says nothing of .*long_view; expected a claim about every gated"):
        Recipe.model_validate(quickstart.model_dump(mode="json") | {"evaluate": {"claims": claims}})


def test_the_defaults_compare_with_production() -> None:
    assert {claim.metric for claim in EvaluateConfig().claims} == {Compared.AUC, Compared.LOGLOSS}
