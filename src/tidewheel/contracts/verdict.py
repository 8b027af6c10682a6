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


class Reason(Contract):
    """One check: its phase and a sentence that carries the numbers, e.g. `auc click: -0.0010 >= -0.0050`.

    `value` is what was measured and `limit` what it was compared with; both are null where there is no number.
    """

    check: str
    phase: Phase
    message: str
    value: float | None = None
    limit: float | None = None


class Verdict(Contract):
    phase: Phase
    reasons: tuple[Reason, ...] = ()

    @property
    def is_successful(self) -> bool:
        return self.phase is Phase.SUCCESSFUL

    def explain(self) -> str:
        """The reasons that decided the phase, in one line; of a pass only how many there are."""
        if self.is_successful:
            return f"{len(self.reasons)} check{'s' if len(self.reasons) > 1 else ''} passed"
        return "; ".join(reason.message for reason in self.reasons if reason.phase is self.phase)


def combine(reasons: Iterable[Reason]) -> Verdict:
    """The worst phase among the reasons. No reasons at all is `Inconclusive`: absence is not consent."""
    reasons = tuple(reasons)
    if not reasons:
        nothing = Reason(check="evidence", phase=Phase.INCONCLUSIVE, message="nothing was checked")
        return Verdict(phase=Phase.INCONCLUSIVE, reasons=(nothing,))
    return Verdict(phase=max((reason.phase for reason in reasons), key=SEVERITY.index), reasons=reasons)
