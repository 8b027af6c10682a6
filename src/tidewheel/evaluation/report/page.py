"""The shell of report.html and data.html: one file that needs nothing from anywhere, in the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tidewheel.contracts.verdict import Reason

# Colours: Okabe & Ito 2008, told apart by colour-blind readers, darkened or lightened for at least 4.5:1 on the background.
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--paper:#fff;--panel:#f6f8fa;
--ranker:#00775a;--student:#0062a3;--production:#b04a00;--good:#1a6b35;--bad:#b3261e;--open:#7a5200;--bar:#8fb8de}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa6b2;--line:#3a424c;--paper:#0f1318;--panel:#181e25;
--ranker:#3fcfa5;--student:#62b5f5;--production:#ffa05c;--good:#5bd17f;--bad:#ff8a80;--open:#f0c05a;--bar:#2f5d87}
}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:66rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}
h1{font-size:1.55rem;margin:.2rem 0}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line);padding-bottom:.3rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
p{margin:.35rem 0}
.soft{color:var(--soft)}
code{font:.86em ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}
th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft);font-size:.85rem}
td.n,th.n{text-align:right}
.outcome{border:1px solid var(--line);border-left:.4rem solid var(--soft);background:var(--panel);padding:.8rem 1rem;
  margin:1rem 0;border-radius:.3rem}
.outcome strong{font-size:1.25rem}
.good{color:var(--good)}
.bad{color:var(--bad)}
.open{color:var(--open)}
.outcome.good{border-left-color:var(--good);color:inherit}
.outcome.bad{border-left-color:var(--bad);color:inherit}
.outcome.open{border-left-color:var(--open);color:inherit}
.outcome.good strong{color:var(--good)}
.outcome.bad strong{color:var(--bad)}
.outcome.open strong{color:var(--open)}
.alarm{border:.2rem solid var(--bad);background:var(--panel);padding:.7rem 1rem;margin:1rem 0;border-radius:.3rem}
.alarm strong{color:var(--bad);font-size:1.35rem;overflow-wrap:anywhere}
.changes{padding-left:1.2rem}
.changes li{margin:.4rem 0}
.badge{display:inline-block;white-space:nowrap;border:1px solid currentColor;border-radius:1rem;padding:0 .55rem;
  font-size:.8rem;font-weight:600}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.7rem;margin:1rem 0}
.cards div{background:var(--panel);border:1px solid var(--line);border-radius:.3rem;padding:.6rem .8rem}
.cards b{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}
.cards span{color:var(--soft);font-size:.85rem}
.track{width:14rem;padding-top:.3rem}
.bar{height:.85rem;background:var(--bar);border-radius:.15rem;min-width:2px}
.bar i{display:block;height:100%;background:var(--soft);border-radius:.15rem}
.ranker{color:var(--ranker)}
.student{color:var(--student)}
.production{color:var(--production)}
details{margin:.4rem 0}
summary{cursor:pointer;color:var(--soft)}
.bounds{display:block;white-space:nowrap;color:var(--soft);font-size:.85em}
svg{display:block;width:100%;height:auto;margin:.4rem 0 1rem}
svg text{font-family:inherit}
figure{margin:0;min-width:0}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(17rem,100%),1fr));gap:.5rem 1.2rem}
.grid h3{overflow-wrap:anywhere}
a{color:var(--student)}
figcaption{color:var(--soft);font-size:.88rem}
@media(max-width:44rem){main{padding:1rem .8rem 3rem}
.wide>svg{min-width:40rem}
.reasons .n,.stack thead{display:none}
.stack tr{display:grid;grid-template-columns:1fr 1fr;gap:.1rem .8rem;padding:.5rem 0;border-bottom:1px solid var(--line)}
.stack td{border:0;padding:0;text-align:left}
.stack td.n{text-align:left}
.stack td.k{font-weight:600}
.stack td.k:first-child:not(:has(+.k)){grid-column:1/-1}
.stack td:not(.k)::before{content:attr(data-head);display:block;color:var(--soft);font-size:.75rem}
.track{width:6rem}
}
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--panel:#fff;
--ranker:#00775a;--student:#0062a3;--production:#b04a00;--good:#1a6b35;--bad:#b3261e;--open:#7a5200;--bar:#8fb8de}
body{font-size:11px}
main{max-width:none;padding:0}
.wide{overflow:visible}
table{font-size:10px}
.bounds{white-space:normal}
details:not(.bulk)::details-content{content-visibility:visible;block-size:auto}
tr,figure,.outcome,.alarm,.cards,.short{break-inside:avoid}
h2,h3,summary,h2+.soft{break-after:avoid}
thead{display:table-header-group}
}
"""

ROWS_OF_A_SHORT_TABLE = 15  # it is printed on one page


def page(title: str, body: str) -> str:
    """A whole document around `body`, which is HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], numeric: frozenset[int] = frozenset(), kind: str = "", keys: int = 1
) -> str:
    """A table. Cells are HTML already; columns whose index is in `numeric` are aligned right.

    Args:
        kind: `reasons`: a narrow screen leaves the numbers out, which the words have; `stack`: it shows each row as a block.
        keys: the first so many cells head such a block; the others are named.
    """
    names = "".join(f"<th{' class=n' if at in numeric else ''}>{escape(name)}</th>" for at, name in enumerate(head))
    looks = [" class=n" if at in numeric else "" for at in range(len(head))]
    if kind == "stack":
        named = [f'{look} data-head="{escape(name)}"' for look, name in zip(looks, head, strict=True)]
        looks = [" class=k"] * keys + named[keys:]
    body = "\n".join(
        "<tr>" + "".join(f"<td{look}>{cell}</td>" for look, cell in zip(looks, row, strict=True)) + "</tr>" for row in rows
    )
    classes = " ".join(["wide", *(["short"] if len(rows) <= ROWS_OF_A_SHORT_TABLE else []), *([kind] if kind else [])])
    return f'<div class="{classes}"><table><thead><tr>{names}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def code(text: str | None) -> str:
    """A digest or a name in monospace; a dash for None."""
    return f"<code>{escape(text)}</code>" if text else "<span class=soft>–</span>"


TONES = {
    "Successful": ("good", "✓"),
    "Failed": ("bad", "✗"),
    "Error": ("bad", "!"),
    "Inconclusive": ("open", "?"),
    "Warning": ("open", "⚠"),
}


def badge(phase: str) -> str:
    """A phase with its sign: colour alone never says it."""
    tone, sign = TONES.get(phase, ("soft", "…"))
    return f'<span class="badge {tone}">{sign} {escape(phase)}</span>'


def number(value: object, digits: int = 4) -> str:
    """A number for people; a dash for what is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def phase_of(reason: Reason) -> str:
    """The badge of a reason: its phase, or that it is a warning."""
    return badge("Warning" if reason.is_warning else reason.phase.value)


def reasons_table(reasons: Sequence[Reason]) -> str:
    """A row a reason, with its numbers where it has any."""
    rows = [[phase_of(reason), escape(reason.message), _short(reason.value), _short(reason.limit)] for reason in reasons]
    return table(("phase", "what was found", "value", "limit"), rows, frozenset({2, 3}), "reasons")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
