"""The canary's part of the report: what each arm did in each step, and every signal's bounds against its limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tidewheel.evaluation.report.page import badge, number, table

ROW, LEFT, WIDTH, TOP = 26, 190, 760, 18


def canary_section(steps: Sequence[Mapping[str, Any]]) -> str:
    """HTML of the steps of a canary, JSON of `contracts.rollout.StepResult`. What is missing in a step is left out."""
    parts = ["<h2>Canary</h2>"]
    rows = []
    for step in steps:
        arms = {name: step.get(name) or {} for name in ("candidate", "control")}
        rows.append(
            [
                number(step.get("number")),
                f"{100 * float(step.get('share') or 0):g}%",
                badge(str(step.get("phase", "Pending"))),
                number(step.get("looks")),
                *(number(arms[arm].get(key)) for key in ("requests", "errors") for arm in ("candidate", "control")),
                *(_milliseconds(arms[arm].get("latency_p50_seconds")) for arm in ("candidate", "control")),
                number(step.get("seconds"), 1),
            ]
        )
    head = ("step", "share", "phase", "looks", "requests", "of control", "errors", "of control", "p50 ms", "of control", "s")
    parts.append(table(head, rows, frozenset({0, 1, *range(3, 11)})))
    for step in steps:
        signals = [signal for signal in step.get("signals") or () if isinstance(signal, Mapping)]
        if signals:
            parts.append(f"<h3>Step {escape(str(step.get('number', '')))}: signals</h3>")
            parts.append(_drawing(signals))
            said = [[badge(str(signal.get("phase", ""))), escape(str(signal.get("message", "")))] for signal in signals]
            words = table(("phase", "what was seen"), said)
            parts.append(f"<details><summary>{len(signals)} signals in words</summary>{words}</details>")
    return "\n".join(parts)


def _drawing(signals: Sequence[Mapping[str, Any]]) -> str:
    """Bounds of every signal against its limit, each row on a scale of its own: signals have different units."""
    height = TOP + ROW * len(signals) + 6
    shapes = [f'<text x="{LEFT}" y="11" font-size="10" fill="var(--soft)">anytime-valid bounds ━  estimate ●  limit ┊</text>']
    for index, signal in enumerate(signals):
        shapes.append(_row(signal, TOP + ROW * index + ROW / 2))
    names = ", ".join(str(signal.get("name", "")) for signal in signals)
    label = escape(f"Bounds of {names} against their limits", quote=True)
    drawing = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(shapes)}</svg>'
    return f'<div class="wide">{drawing}</div>'


def _row(signal: Mapping[str, Any], y: float) -> str:
    lower, upper, estimate, limit = (_finite(signal.get(name)) for name in ("lower", "upper", "estimate", "limit"))
    phase = str(signal.get("phase", ""))
    colour = {"Successful": "var(--good)", "Failed": "var(--bad)", "Error": "var(--bad)"}.get(phase, "var(--open)")
    sign = {"Successful": "✓", "Failed": "✗", "Error": "!"}.get(phase, "?")
    name = escape(str(signal.get("name", "")))
    parts = [
        f'<text x="0" y="{y + 4:.0f}" font-size="12" fill="var(--ink)"><tspan fill="{colour}">{sign}</tspan> {name}</text>'
    ]
    known = [value for value in (lower, upper, estimate, limit) if value is not None]
    if not known:
        return "".join(parts)
    low, high = min(known), max(known)
    span = (high - low) or abs(high) or 1.0
    low, span = low - 0.08 * span, 1.16 * span
    right = WIDTH - 110

    def place(value: float) -> float:
        return LEFT + (right - LEFT) * (value - low) / span

    parts.append(_line(LEFT, right, y, y, 'stroke="var(--line)"'))
    if lower is not None or upper is not None:
        start, end = place(lower) if lower is not None else LEFT, place(upper) if upper is not None else right
        parts.append(_line(start, end, y, y, f'stroke="{colour}" stroke-width="5" stroke-linecap="round"'))
    if limit is not None:
        parts.append(_line(place(limit), place(limit), y - 10, y + 10, 'stroke="var(--ink)" stroke-dasharray="3 2"'))
    if estimate is not None:
        parts.append(f'<circle cx="{place(estimate):.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" stroke="var(--paper)"/>')
    said = f"{estimate:.4g}" if estimate is not None else "–"
    said += f" / {limit:.4g}" if limit is not None else ""
    parts.append(f'<text x="{right + 10}" y="{y + 4:.0f}" font-size="11" fill="var(--soft)">{said}</text>')
    return "".join(parts)


def _line(x1: float, x2: float, y1: float, y2: float, look: str) -> str:
    return f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" {look}/>'


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _milliseconds(seconds: object) -> str:
    value = _finite(seconds)
    return "–" if value is None else f"{1000 * value:.1f}"
