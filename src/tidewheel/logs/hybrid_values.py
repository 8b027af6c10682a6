"""Whether rows of a hybrid log mean what its contract says. Tables in, findings out; `day` is a row's partition."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tidewheel.contracts.base import Contract
from tidewheel.contracts.hybrid import COLUMNS, IMPRESSION, SCORE_PREFIX, Part

DAY = "day"  # date32: what `rows` of hybrid_check adds to each row
MAX_ORPHAN_SHARE = 0.05  # what a recipe tolerates by default (ingest.max_quarantine_share)
CLOCK_SKEW_SECONDS = 300  # of honest clocks
MIN_ROWS_TO_JUDGE_RATES = 10


class Finding(Contract):
    """One thing that was looked at; `expected` and `remedy` where it is not well."""

    place: str
    is_well: bool
    found: str
    expected: str = ""
    remedy: str = ""


def fact(place: str, found: str) -> Finding:
    return Finding(place=place, is_well=True, found=found)


def fault(place: str, found: str, expected: str, remedy: str) -> Finding:
    return Finding(place=place, is_well=False, found=found, expected=expected, remedy=remedy)


def check_served(rows: pa.Table) -> list[Finding]:
    """Findings on served candidates: ids, ranks, propensities, scores, times."""
    place = Part.BACKEND.value
    found = _nulls(place, rows, Part.BACKEND)
    found += _empty(place, rows, "request_id")
    found += _rule(place, "propensity", _outside(rows["propensity"]), "outside (0, 1]", "probabilities", "log the exact one")
    is_unknown = pc.and_(rows["is_randomized"], pc.is_null(rows["propensity"]))
    remedy = "log the probability of what was shown, or is_randomized false"
    found += _rule(place, "propensity", is_unknown, "null on a randomized request", "a probability in (0, 1]", remedy)
    if "position" in rows.column_names:
        found += _rule(place, "position", pc.less(rows["position"], 0), "negative", "ranks from 0", "count from 0")
    for name in rows.column_names:
        if name.startswith(SCORE_PREFIX):
            bad = pc.invert(pc.and_(pc.greater_equal(rows[name], 0.0), pc.less_equal(rows[name], 1.0)))
            found += _rule(place, name, bad, "no probability", "scores in [0, 1]", "log the calibrated probability")
    return found + _arrived_by_the_end_of_the_day(place, rows, "served_time")


def check_events(rows: pa.Table) -> list[Finding]:
    """Findings on events: names, rates, times; and what there is, for people to judge."""
    place = Part.FRONTEND.value
    found = _nulls(place, rows, Part.FRONTEND)
    found += _empty(place, rows, "request_id") + _empty(place, rows, "event")
    remedy = "log the probability with which an impression of this request is logged"
    found += _rule(place, "logging_rate", _outside(rows["logging_rate"]), "outside (0, 1]", "probabilities", remedy)
    found += _names(place, rows) + _rates(place, rows)
    for name in ("served_time", "event_time"):
        ahead = pc.seconds_between(rows["logged_time"], rows[name])
        bad, remedy = pc.greater(ahead, CLOCK_SKEW_SECONDS), "set the clocks; ingest quarantines events from the future"
        found += _rule(place, name, bad, "after logged_time", f"at most {CLOCK_SKEW_SECONDS} s of skew", remedy)
    early = pc.greater(pc.seconds_between(rows["event_time"], rows["served_time"]), CLOCK_SKEW_SECONDS)
    found += _rule(place, "event_time", early, "before served_time", "what happened after the answer", "set the clocks")
    found += _arrived_by_the_end_of_the_day(place, rows, "logged_time")
    if rows.num_rows:
        late = pc.quantile(pc.seconds_between(rows["served_time"], rows["logged_time"]), [0.5, 0.99, 1.0]).to_pylist()
        median, most, last = (f"{seconds / 3600:.2f} h" for seconds in late)
        found.append(fact(f"{place}, lateness", f"from served to logged: median {median}, 99% within {most}, at most {last}"))
    return found


def check_orphans(events: pa.Table, served: pa.Table) -> Finding:
    """The share of events whose candidate is not among the served ones. Both have `request_id` and `item_id`."""
    keys = ["request_id", "item_id"]
    orphans = events.select(keys).join(served.select(keys).group_by(keys).aggregate([]), keys, join_type="left anti").num_rows
    share = orphans / max(events.num_rows, 1)
    found = f"{orphans} of {events.num_rows} events ({share:.1%}) are of no served candidate"
    if share <= MAX_ORPHAN_SHARE:
        return fact("orphans", found)
    remedy = "send request_id and item_id back as the answer had them; look for dropped rows of servers"
    return fault("orphans", found, f"at most {MAX_ORPHAN_SHARE:.0%}", remedy)


def _nulls(place: str, rows: pa.Table, part: Part) -> list[Finding]:
    found: list[Finding] = []
    for name, (_, may_be_null, _) in COLUMNS[part].items():
        if not may_be_null and name in rows.column_names:
            found += _rule(place, name, pc.is_null(rows[name]), "null", "a value in every row", "leave such rows out")
    return found


def _empty(place: str, rows: pa.Table, name: str) -> list[Finding]:
    return _rule(place, name, pc.equal(rows[name], ""), "empty", "a text", "leave such rows out")


def _outside(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where a value is there and no probability in (0, 1]; NaN is none."""
    return pc.invert(pc.and_(pc.greater(values, 0.0), pc.less_equal(values, 1.0)))


def _names(place: str, rows: pa.Table) -> list[Finding]:
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(rows["event"]).to_pylist()}
    shown = ", ".join(f"{name} {counts[name]}" for name in sorted(counts, key=str))
    if not rows.num_rows or IMPRESSION in counts:
        return [fact(f"{place}, event", shown or "no events")]
    remedy = "log a sample of the impressions: without them nobody knows what was seen and not wanted"
    return [fault(f"{place}, event", shown, f"{IMPRESSION} among them", remedy)]


def _rates(place: str, rows: pa.Table) -> list[Finding]:
    """The rate belongs to the request, so that of an engagement is that of its request's impressions."""
    expected = "one rate a request, that of its impressions"
    remedy = "engagements carry the rate of impressions, not 1, though they are always logged"
    by_request = rows.group_by("request_id").aggregate([("logging_rate", "min"), ("logging_rate", "max")])
    differs = pc.not_equal(by_request["logging_rate_min"], by_request["logging_rate_max"])
    if number := pc.sum(differs).as_py():
        return [fault(f"{place}, logging_rate", f"differs within {number} requests", expected, remedy)]
    is_impression = pc.equal(rows["event"], IMPRESSION)
    seen, engaged = rows.filter(is_impression)["logging_rate"], rows.filter(pc.invert(is_impression))["logging_rate"]
    if min(len(seen), len(engaged)) < MIN_ROWS_TO_JUDGE_RATES:
        return []
    if pc.min(engaged).as_py() == 1.0 and pc.max(seen).as_py() < 1.0:
        return [fault(f"{place}, logging_rate", "1 on every engagement, less on every impression", expected, remedy)]
    means = f"{pc.mean(seen).as_py():.3f} on impressions, {pc.mean(engaged).as_py():.3f} on engagements, on average"
    return [fact(f"{place}, logging_rate", means)]


def _arrived_by_the_end_of_the_day(place: str, rows: pa.Table, column: str) -> list[Finding]:
    bad = pc.greater(rows[column].cast(pa.date32()), rows[DAY])
    return _rule(place, column, bad, "after the day of its partition", "rows of this day or older", "partition by arrival, UTC")


def _rule(place: str, column: str, is_bad: pa.ChunkedArray, what: str, expected: str, remedy: str) -> list[Finding]:
    number = pc.sum(is_bad).as_py() or 0
    if not number:
        return []
    return [fault(f"{place}, {column}", f"{number} of {len(is_bad)} rows {what}", expected, remedy)]
