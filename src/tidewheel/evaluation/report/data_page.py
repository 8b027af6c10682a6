"""data.html: what `validate_data` found, for the person whose data was refused. Stdlib only, so it is quick to load."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from tidewheel.contracts.evidence import Comparison, DataReport, Profile
from tidewheel.contracts.verdict import Phase, Reason
from tidewheel.contracts.window import iso
from tidewheel.evaluation.report.page import number, page, phase_of, reasons_table, table

HEADINGS = {
    "Successful": ("good", "Data accepted"),
    "Failed": ("bad", "Data rejected"),
    "Error": ("bad", "Data could not be checked"),
    "Inconclusive": ("open", "Not enough data to judge"),
}
MAX_BINS_LISTED = 60


def render_data(run_id: str, found: DataReport) -> str:
    """One self-contained HTML document: no script, nothing loaded, light or dark as the reader likes it."""
    drift = [comparison for comparison in found.comparisons if comparison.baseline_rows is not None or comparison.value is None]
    calibration = [comparison for comparison in found.comparisons if comparison not in drift]
    reasons = {reason.check: reason for reason in found.verdict.reasons}
    parts = [_top(run_id, found), _cards(found), _open(found)]
    if drift:
        parts.append(
            "<h2>Drift from production's training rows</h2>"
            '<p class="soft">Weighted by 1 / inclusion probability. In brackets and as a line the interval, which knows that '
            "rows of one user resemble each other; all intervals hold together. Tick: the limit.</p>"
            + _comparisons(drift, reasons, ("effective rows", "production's"))
        )
    if calibration:
        parts.append(
            "<h2>Production on this window's held-out rows</h2>"
            '<p class="soft">Production never saw these rows. A warning here is a reason to retrain, not to refuse.</p>'
            + _comparisons(calibration, reasons, ("effective rows",))
        )
    parts += [_windows(found), _histograms(found), _checks(found)]
    return page(f"{run_id}: data", "\n".join(part for part in parts if part))


def _top(run_id: str, found: DataReport) -> str:
    tone, heading = HEADINGS.get(found.verdict.phase.value, ("open", found.verdict.phase.value))
    window = found.window.window
    return (
        f'<p class="soft"><a href="report.html">← report</a></p><h1>Data of {escape(run_id)}</h1>'
        f'<p class="soft">Impressions from {iso(window.start)} to {iso(window.end)} (end excluded)</p>'
        f'<div class="outcome {tone}"><strong>{heading}</strong><p>{escape(found.verdict.explain())}</p></div>'
    )


def _cards(found: DataReport) -> str:
    cards = [
        (f"{found.window.rows:,}", "training rows"),
        (f"{found.profile.effective_rows:,.0f}", "effective rows (Kish)"),
        (f"{found.window.weight_sum:,.0f}", "impressions they stand for"),
        (str(len(found.verdict.warnings)), "warnings"),
    ]
    shown = "".join(f"<div><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in cards)
    return f'<div class="cards">{shown}</div>'


def _open(found: DataReport) -> str:
    """What did not pass, critical checks first."""
    reasons = [reason for reason in found.verdict.reasons if reason.phase is not Phase.SUCCESSFUL]
    ordered = sorted(reasons, key=lambda reason: reason.is_warning)
    return f"<h2>What did not pass</h2>{reasons_table(ordered)}" if ordered else ""


def _comparisons(comparisons: Sequence[Comparison], reasons: dict[str, Reason], rows_heads: tuple[str, ...]) -> str:
    """A row a comparison, what lies furthest towards or beyond its limit first."""
    ordered = sorted(comparisons, key=lambda c: -(c.value if c.value is not None else float("inf")) / c.limit)
    rows = []
    for comparison in ordered:
        bounds = f"[{number(comparison.lower)}, {number(comparison.upper)}]"
        value = f'{number(comparison.value)} <span class="bounds">{bounds}</span>'
        counts = [comparison.effective_rows, comparison.baseline_rows][: len(rows_heads)]
        rows.append(
            [
                escape(comparison.check.removeprefix("drift ")),
                escape(comparison.statistic),
                value,
                _line(comparison),
                f"{comparison.limit:g}",
                *(f"{count:,.0f}" if count is not None else "–" for count in counts),
                phase_of(reasons[comparison.check]) if comparison.check in reasons else "",
            ]
        )
    head = ("what", "statistic", "value", "", "limit", *rows_heads, "")
    return table(head, rows, frozenset({4, *range(5, 5 + len(rows_heads))}))


def _line(comparison: Comparison) -> str:
    """Interval, value and limit on one scale that ends at twice the limit."""
    if comparison.value is None or comparison.lower is None:
        return ""

    def at(value: float) -> str:
        return f"{min(max(value / (2 * comparison.limit), 0.0), 1.0) * 116 + 2:.1f}"

    upper = comparison.upper if comparison.upper is not None else 2 * comparison.limit
    return (
        '<svg viewBox="0 0 120 14" style="width:7.5rem;margin:.2rem 0" aria-hidden="true">'
        f'<line x1="60" x2="60" y1="0" y2="14" stroke="var(--bad)" stroke-dasharray="2 2"/>'
        f'<line x1="{at(comparison.lower)}" x2="{at(upper)}" y1="7" y2="7" stroke="var(--student)" stroke-width="2"/>'
        f'<circle cx="{at(comparison.value)}" cy="7" r="3" fill="var(--student)"/></svg>'
    )


def _windows(found: DataReport) -> str:
    """This window under those it was compared with."""
    labels = sorted(found.window.label_rates)
    rows = [
        [
            iso(record.window.end) + (" (this)" if record is found.window else ""),
            f"{record.rows:,}",
            f"{record.weight_sum:,.0f}",
            *(number(record.label_rates.get(label)) for label in labels),
        ]
        for record in (*found.trailing, found.window)
    ]
    head = ("window ends", "training rows", "impressions", *(f"rate of {label}" for label in labels))
    note = '<p class="soft">Windows that passed validation; rates are weighted.</p>'
    return f"<h2>This window and those before it</h2>{note}{table(head, rows, frozenset(range(1, len(head))))}"


def _histograms(found: DataReport) -> str:
    """A card a feature, in the bins of production's profile, the furthest moved first."""
    moved = {c.subject: c.value or 0.0 for c in found.comparisons if c.statistic == "psi"}
    names = sorted(found.profile.shares, key=lambda name: (-moved.get(name, 0.0), name))
    if not names:
        return ""
    cards = "".join(_histogram(name, found.profile, found.baseline) for name in names)
    legend = '<span class="student">■ this window</span>'
    if found.baseline is not None:
        legend = f'<span class="production">■ production\'s training rows</span> {legend}'
    return f'<h2>Histograms</h2><p class="soft">Share of the weight in each bin. {legend}</p><div class="grid">{cards}</div>'


def _histogram(name: str, new: Profile, old: Profile | None) -> str:
    shares = {"student": new.shares[name]}
    if old is not None and len(old.shares.get(name, ())) == len(new.shares[name]):
        shares = {"production": old.shares[name], **shares}
    bins = bin_names(new, name)
    top = max(max(values) for values in shares.values()) or 1.0
    width = 300 / len(bins)
    bars = []
    for index, (colour, values) in enumerate(shares.items()):
        for at, value in enumerate(values):
            height = 80 * value / top
            left, breadth = width * (at + 0.1 + 0.4 * index), width * 0.8 / len(shares)
            hint = f"<title>{escape(bins[at])}: {value:.2%}</title>"
            bars.append(
                f'<rect x="{left:.1f}" y="{80 - height:.1f}" width="{breadth:.1f}" height="{height:.1f}" '
                f'fill="var(--{colour})">{hint}</rect>'
            )
    drawing = (
        f'<svg viewBox="0 0 300 82" role="img" aria-label="{escape(name)}">{"".join(bars)}'
        '<line x1="0" x2="300" y1="80.5" y2="80.5" stroke="var(--line)"/></svg>'
    )
    rows = [
        [escape(bins[at]), *(f"{values[at]:.2%}" for values in shares.values())]
        for at in range(len(bins))
        if any(values[at] > 0 for values in shares.values())
    ]
    head = ("bin", "production", "this window") if len(shares) == 2 else ("bin", "this window")
    listed = table(head, rows[:MAX_BINS_LISTED], frozenset(range(1, len(head))))
    return f"<figure><h3>{escape(name)}</h3>{drawing}<details><summary>{len(rows)} bins</summary>{listed}</details></figure>"


def bin_names(profile: Profile, feature: str) -> list[str]:
    """What each bin of a feature holds, in the order of its shares."""
    if feature in profile.categorical_values:
        return [*profile.categorical_values[feature], "all others", "null"]
    edges = profile.numeric_edges[feature]
    if not edges:
        return ["any number", "null"]
    between = [f"[{low:g}, {high:g})" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g}", *between, f"from {edges[-1]:g}", "null"]


def _checks(found: DataReport) -> str:
    """Every check, by split where it is of one."""
    groups: dict[str, list[Reason]] = {}
    for reason in found.verdict.reasons:
        words = reason.check.split(" ")
        is_of_split = words[0] == "expect" and len(words) > 1
        groups.setdefault(f"split {words[1]}" if is_of_split else words[0].replace("_", " "), []).append(reason)
    parts = []
    for group, reasons in groups.items():
        failed = sum(reason.phase is not Phase.SUCCESSFUL for reason in reasons)
        summary = f"{escape(group)}: {len(reasons) - failed} passed" + (f", {failed} did not" if failed else "")
        parts.append(f"<details{' open' if failed else ''}><summary>{summary}</summary>{reasons_table(reasons)}</details>")
    return f"<h2>All checks</h2>{''.join(parts)}"
