"""The numbers of a run by name."""

from __future__ import annotations

import math

from tests.unit.evaluation.report.comparisons import RELEASE, comparison, estimate, metrics
from tidewheel.contracts.comparison import Estimate
from tidewheel.evaluation.report.scalars import scalars


def test_every_number_has_a_name_with_its_bounds() -> None:
    found = dict(scalars(metrics("student", "production"), comparison()))
    assert found["student.click.auc"] == 0.5
    assert (found["student.click.auc.lower"], found["student.click.auc.upper"]) == (0.49, 0.51)
    assert found["difference.click.logloss"] == -0.0045
    assert found["replay.student.click.snips"] == 0.3111
    assert found["replay.difference.click.ips"] == 0.0334
    assert found["replay.student.click.support"] == 876.0
    assert found["stability.click.kendall_tau"] == 0.8765
    assert found["randomized.production.click.auc"] == 0.6
    assert found[f"release.{RELEASE[:12]}.click.auc"] == 0.0246


def test_what_is_not_known_has_no_name() -> None:
    broken = Estimate.model_construct(value=math.nan, lower=-math.inf, upper=0.5, effective_rows=1.0)
    unknown = {"student": {"click": {"auc": estimate(None), "logloss": estimate(0.4, None), "ece": broken}}}
    assert dict(scalars(unknown, None)) == {"student.click.logloss": 0.4, "student.click.ece.upper": 0.5}
