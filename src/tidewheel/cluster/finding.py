"""What `doctor --cluster` says of one thing it looked at."""

from __future__ import annotations

from enum import StrEnum

from tidewheel.contracts.base import Contract


class Severity(StrEnum):
    """Of a finding that is not well: runs cannot do without it, or only something that they may do."""

    NEEDED = "needed"
    OPTIONAL = "optional"


class Finding(Contract):
    """One thing that was looked at: what was found, and, where it is not well, what was expected and what to do."""

    name: str
    severity: Severity
    is_well: bool
    found: str
    expected: str = ""
    remedy: str = ""

    @property
    def is_in_the_way(self) -> bool:
        return not self.is_well and self.severity is Severity.NEEDED

    def explain(self) -> str:
        """In one line; of one that is not well, with what was expected and what to do."""
        return self.found if self.is_well else f"{self.found}; expected {self.expected}: {self.remedy}"


def well(name: str, found: str) -> Finding:
    return Finding(name=name, severity=Severity.NEEDED, is_well=True, found=found)


def needed(name: str, found: str, expected: str, remedy: str) -> Finding:
    return Finding(name=name, severity=Severity.NEEDED, is_well=False, found=found, expected=expected, remedy=remedy)


def optional(name: str, found: str, expected: str, remedy: str) -> Finding:
    return Finding(name=name, severity=Severity.OPTIONAL, is_well=False, found=found, expected=expected, remedy=remedy)


def at_fault(severity: Severity, name: str, found: str, expected: str, remedy: str) -> Finding:
    return Finding(name=name, severity=severity, is_well=False, found=found, expected=expected, remedy=remedy)
