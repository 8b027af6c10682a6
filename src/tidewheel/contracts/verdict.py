"""Verdicts: a phase, and reasons with their numbers. Only `Successful` lets anything pass."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from tidewheel.contracts.base import Contract


class Phase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    ERROR = "Error"
    INCONCLUSIVE = "Inconclusive"


# The worst phase of any reason is the verdict's: a proven harm outweighs a broken measurement,
# which outweighs missing evidence.
SEVERITY = (Phase.SUCCESSFUL, Phase.PENDING, Phase.RUNNING, Phase.INCONCLUSIVE, Phase.ERROR, Phase.FAILED)


class Severity(StrEnum):
    CRITICAL = "critical"  # decides
    WARNING = "warning"  # is shown wherever the verdict is, and never stops a run


class Reason(Contract):
    """One check: its phase and a sentence that carries the numbers, e.g. `auc click: -0.0010 >= -0.0050`.

    `value` is what was measured and `limit` what it was compared with; both are null where there is no number.
    """

    check: str
    phase: Phase
    message: str
    value: float | None = None
    limit: float | None = None
    severity: Severity = Severity.CRITICAL

    @property
    def is_warning(self) -> bool:
        """It did not pass, and does not decide."""
        return self.severity is Severity.WARNING and self.phase is not Phase.SUCCESSFUL


class Verdict(Contract):
    phase: Phase
    reasons: tuple[Reason, ...] = ()

    @property
    def is_successful(self) -> bool:
        return self.phase is Phase.SUCCESSFUL

    @property
    def warnings(self) -> tuple[Reason, ...]:
        return tuple(reason for reason in self.reasons if reason.is_warning)

    def explain(self) -> str:
        """The reasons that decided the phase, in one line; of a pass only how many there are, and how many warnings."""
        if self.is_successful:
            passed, warned = len(self.reasons) - len(self.warnings), len(self.warnings)
            return _count(passed, "check") + " passed" + (f", {_count(warned, 'warning')}" if warned else "")
        return "; ".join(reason.message for reason in self.reasons if reason.phase is self.phase and not reason.is_warning)


def combine(reasons: Iterable[Reason]) -> Verdict:
    """The worst phase among the critical reasons. None of them at all is `Inconclusive`: absence is not consent."""
    reasons = tuple(reasons)
    deciding = [reason.phase for reason in reasons if reason.severity is Severity.CRITICAL]
    if not deciding:
        nothing = Reason(check="evidence", phase=Phase.INCONCLUSIVE, message="nothing was checked")
        return Verdict(phase=Phase.INCONCLUSIVE, reasons=(*reasons, nothing))
    return Verdict(phase=max(deciding, key=SEVERITY.index), reasons=reasons)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
