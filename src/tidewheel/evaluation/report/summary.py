"""The verdict of `evaluate` on one Markdown page, for pipeline UIs. Pure, from contracts alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tidewheel.contracts.comparison import Comparability
from tidewheel.contracts.evidence import Evaluation
from tidewheel.contracts.verdict import SEVERITY
from tidewheel.evaluation.report.counterfactual import changes
from tidewheel.evaluation.report.sections import SIGNS, sections, text

SPECIAL = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_{}[]#|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
)


def markdown(found: Evaluation, drawn: str) -> str:
    """Phase and reasons first, then what would have changed it, then every table of `sections`.

    Args:
        drawn: the label whose curves the pipeline shows beside this page; empty for none.
    """
    verdict, comparison = found.verdict, found.comparison
    lines = [f"# {verdict.phase.value}: {_plain(verdict.explain())}", ""]
    if comparison.baseline is Comparability.INCOMPATIBLE:
        missing = _plain(", ".join(comparison.missing_features)) or "not said which"
        lines += [f"**⚠ {_plain(comparison.baseline.value)}**: this window's rows lack what production takes: {missing}", ""]
    worst_first = sorted(verdict.reasons, key=lambda reason: (reason.is_warning, -SEVERITY.index(reason.phase)))
    signs = [("⚠" if reason.is_warning else SIGNS.get(reason.phase, "?"), reason.message) for reason in worst_first]
    lines += [*(f"- {sign} {_plain(message)}" for sign, message in signs), ""]
    lines += ["## What would have changed the verdict", ""]
    lines += [f"- {_plain(change.check)}: {_plain(change.words)}" for change in changes(verdict, found.metrics, comparison)]
    for section in sections(found.metrics, comparison, verdict):
        lines += ["", f"## {_plain(section.title)}", "", _plain(section.note), ""]
        lines += _table(section.head, ([text(cell) for cell in row] for row in section.rows))
    if drawn:
        lines += [
            "",
            f"ROC and confusion matrix beside this page are of {_plain(drawn)}, weighted; the matrix is at the threshold",
        ]
        lines += ["at which the student says yes as often as it happens."]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell if cell == "---" else _plain(cell) for cell in line) + " |" for line in lines]


def _plain(words: str) -> str:
    """Words that Markdown shows as they are, on one line."""
    return " ".join(words.split()).translate(SPECIAL)
