"""How much a check counts: critical ones decide, warnings are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tidewheel.contracts.verdict import Reason, Severity

# Production's calibration on new rows is what retraining is for; a label's rate is judged against production as well.
DEFAULTS = {"calibration": Severity.WARNING, "label_rate": Severity.WARNING}


def severity_of(check: str, chosen: Mapping[str, Severity]) -> Severity:
    """Of the entries whose words begin the check's name the longest counts; without any it is critical."""
    rules = {**DEFAULTS, **chosen}
    matching = [key for key in rules if check == key or check.startswith(key + " ")]
    return rules[max(matching, key=len)] if matching else Severity.CRITICAL


def graded(reasons: Iterable[Reason], chosen: Mapping[str, Severity]) -> list[Reason]:
    """The reasons with the severity that the recipe gives them."""
    return [reason.model_copy(update={"severity": severity_of(reason.check, chosen)}) for reason in reasons]
