from __future__ import annotations

import math
from pathlib import Path

import pytest

from tidewheel.contracts.base import canonical_json, digest_of
from tidewheel.contracts.verdict import Phase, Reason, Verdict, combine
from tidewheel.errors import ContractError


def reason(phase: Phase) -> Reason:
    return Reason(check="a", phase=phase, message=f"was {phase.value}")


def test_equal_values_have_one_digest_whatever_their_order() -> None:
    assert digest_of({"a": 1, "b": [1.5, None]}) == digest_of({"b": [1.5, None], "a": 1})


def test_nan_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"value": math.nan})


def test_a_contract_reads_back_what_it_wrote(tmp_path: Path) -> None:
    verdict = combine([reason(Phase.SUCCESSFUL)])

    assert Verdict.read(verdict.write(tmp_path / "verdict.json")) == verdict


def test_a_truncated_document_is_refused_by_name(tmp_path: Path) -> None:
    path = combine([reason(Phase.SUCCESSFUL)]).write(tmp_path / "verdict.json")
    path.write_text(path.read_text()[:-10])

    with pytest.raises(ContractError, match=r"verdict\.json"):
        Verdict.read(path)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ContractError, match="surprise"):
        Verdict.parse('{"phase": "Successful", "surprise": 1}', "here")


@pytest.mark.parametrize(
    ("phases", "want"),
    [
        ([Phase.SUCCESSFUL, Phase.SUCCESSFUL], Phase.SUCCESSFUL),
        ([Phase.SUCCESSFUL, Phase.INCONCLUSIVE], Phase.INCONCLUSIVE),
        ([Phase.INCONCLUSIVE, Phase.ERROR], Phase.ERROR),
        ([Phase.ERROR, Phase.FAILED, Phase.SUCCESSFUL], Phase.FAILED),
        ([Phase.SUCCESSFUL, Phase.RUNNING], Phase.RUNNING),
    ],
)
def test_the_worst_reason_decides(phases: list[Phase], want: Phase) -> None:
    assert combine(reason(phase) for phase in phases).phase is want


def test_no_reasons_is_inconclusive_not_a_pass() -> None:
    assert combine([]).phase is Phase.INCONCLUSIVE
