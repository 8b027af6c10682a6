"""The work of `ingest` and `sample` as one DuckDB script, written by hand for KuaiRand and recipes/kuairand.yaml.

A peer of bench/data_plane.py, which says what the work is. Two things differ from ours, and only these: row keys and draws
come from DuckDB's own hash, and files are cut by its writer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from bench.work import COUNTED, LABELS, RATE_LABELS, Work, phase

MEMORY_LIMIT = "8GB"
_SIDE_FEATURES = {
    "u": ("user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range"),
    "v": ("video_type", "upload_type", "music_type", "tag"),
}


def main(work: Work) -> dict[str, Any]:
    out = work.out
    db = duckdb.connect()  # in memory, which is faster than a file beside it; what does not fit is spilled
    db.execute(f"SET threads={work.cores}; SET memory_limit='{MEMORY_LIMIT}'; SET TimeZone='UTC'")
    db.execute(f"SET temp_directory='{out / 'spill'}'")
    with phase("stage"):
        _stage(db, work)
    with phase("impressions"):
        _counters(db, work)
        _write(db, _impressions(), out / "impressions")
    with phase("counters, quarantine"):
        _write(db, _snapshot(work), out / "counters")
        _write(db, "SELECT status AS reason, raw AS row FROM staged WHERE raw IS NOT NULL AND in_window", out / "quarantine")
    with phase("sample"):
        totals = _sample(db, work)
    db.close()
    return totals


def _stage(db: duckdb.DuckDBPyConnection, work: Work) -> None:
    """Typed rows of the window and its lookback, each with its status."""
    types = {"user_id": "BIGINT", "item_id": "BIGINT", "author_id": "BIGINT", "hour": "BIGINT", "tab": "BIGINT"}
    ids = ", ".join(f"TRY_CAST({name} AS {kind}) AS {name}" for name, kind in types.items())
    labels = ", ".join(f"CASE WHEN {column} IN (0, 1) THEN {column}::TINYINT END AS label_{name}" for name, column in LABELS)
    sides = ", ".join(f"{side}.{name}" for side, names in _SIDE_FEATURES.items() for name in names)
    features = ", ".join(name for names in _SIDE_FEATURES.values() for name in names)
    log = f"read_parquet('{work.data}/log_*.parquet')"
    reasons = " ".join(
        f"WHEN {fault} THEN '{name}'"
        for name, fault in {
            "no_user_id": "user_id IS NULL",
            "no_item_id": "item_id IS NULL",
            "no_author_id": "author_id IS NULL",
            "no_event_time": "event_time IS NULL",
            **{f"label_{name}_not_0_or_1": f"label_{name} IS NULL" for name, _ in LABELS},
            "is_randomized_unknown": "is_randomized IS NULL",
            "propensity_outside_0_1": "is_randomized",
        }.items()
    )
    positives = " + ".join(f"coalesce(label_{name}, 0)" for name, _ in LABELS)
    content = f"author_id, is_randomized, {', '.join(f'label_{name}' for name, _ in LABELS)}, tab, duration_ms, {features}"
    db.execute(f"""
        CREATE TABLE staged AS
        WITH log AS (
          SELECT l, epoch_ms(CASE WHEN time_ms BETWEEN 0 AND 253402300799999 THEN time_ms END) AS event_time FROM {log} l
        ), joined AS (
          SELECT l.user_id, l.video_id AS item_id, v.author_id, event_time, l.is_rand = 1 AS is_randomized,
            'u' || l.user_id || '-' || floor(epoch(event_time) / 3600)::BIGINT AS request_id, hour(event_time) AS hour, l.tab,
            CASE WHEN l.duration_ms > 0 THEN l.duration_ms::DOUBLE END AS duration_ms,
            CASE WHEN event_time::DATE >= TRY_CAST(v.upload_dt AS DATE)
              THEN (event_time::DATE - TRY_CAST(v.upload_dt AS DATE))::DOUBLE END AS item_age_days,
            {", ".join(f"l.{column}" for _, column in LABELS)}, {sides}, l
          FROM log LEFT JOIN '{work.data}/user_features.parquet' u ON l.user_id = u.user_id
          LEFT JOIN '{work.data}/video_features_basic.parquet' v ON l.video_id = v.video_id
        ), typed AS (
          SELECT {ids}, request_id, event_time, NULL::INTEGER AS position, is_randomized, NULL::DOUBLE AS propensity,
            1.0::DOUBLE AS inclusion_probability, {labels}, duration_ms, item_age_days, {features}, l,
            date_diff('day', DATE '1970-01-01', event_time::DATE) AS day
          FROM joined
        ), judged AS (
          SELECT * EXCLUDE (l), (hash(user_id, item_id, event_time) >> 1)::BIGINT AS row_key,
            CASE {reasons} END AS reason, CASE WHEN reason IS NOT NULL THEN to_json(l)::VARCHAR END AS raw,
            {positives} AS positives, hash({content}) AS content
          FROM typed WHERE day IS NULL OR (day >= {work.first_day} AND day < {work.end_day})
        )
        SELECT * EXCLUDE (reason, positives, content),
          coalesce(event_time >= {_time(work.start_us)} AND event_time < {_time(work.end_us)}, true) AS in_window,
          CASE WHEN reason IS NOT NULL THEN reason
            WHEN lag(content) OVER same IS NULL THEN 'valid'
            WHEN lag(content) OVER same = content THEN 'exact_duplicate' ELSE 'conflicting_duplicate' END AS status
        FROM judged
        WINDOW same AS (PARTITION BY user_id, item_id, event_time, reason IS NULL ORDER BY positives DESC, content)
    """)


def _time(microseconds: int) -> str:
    return f"make_timestamp({microseconds})"


def _weighted(prefix: str = "") -> str:
    sums = (
        f"sum(CASE WHEN label_{label} = 1 THEN 1 / inclusion_probability ELSE 0 END) AS {prefix}{label}"
        for label in RATE_LABELS
    )
    return ", ".join((f"sum(1 / inclusion_probability) AS {prefix}impressions", *sums))


def _rates(work: Work, names: str, alias: str) -> str:
    """`names` and `alias` are patterns with one place: for the sum that goes in and the column that comes out."""
    seen = f"coalesce({names.format('impressions')}, 0)"
    rates = (
        f"(coalesce({names.format(label)}, 0) + {work.smoothing} * {work.priors[label]}) / ({seen} + {work.smoothing}) "
        f"AS {alias.format(label + '_rate')}"
        for label in RATE_LABELS
    )
    return ", ".join((f"{seen} AS {alias.format('impressions')}", *rates))


def _counters(db: duckdb.DuckDBPyConnection, work: Work) -> None:
    for entity in COUNTED:
        before = ", ".join(f"sum({name}) OVER before AS {name}" for name in ("impressions", *RATE_LABELS))
        db.execute(f"""
            CREATE TABLE {entity}_counters AS
            WITH daily AS (
              SELECT {entity}_id, day, {_weighted()} FROM staged WHERE status = 'valid' GROUP BY ALL
            ), sums AS (
              SELECT {entity}_id, day, {before} FROM daily
              WINDOW before AS (
                PARTITION BY {entity}_id ORDER BY day RANGE BETWEEN {work.lookback_days} PRECEDING AND 1 PRECEDING)
            )
            SELECT {entity}_id, day, {_rates(work, "{}", entity + "_{}")} FROM sums
        """)


def _impressions() -> str:
    joins = " ".join(f"LEFT JOIN {entity}_counters USING ({entity}_id, day)" for entity in COUNTED)
    return f"""SELECT * EXCLUDE (day, in_window, status, raw) FROM staged {joins} WHERE status = 'valid' AND in_window
        ORDER BY row_key, event_time, request_id, item_id, user_id"""


def _snapshot(work: Work) -> str:
    each = " UNION ALL ".join(
        f"SELECT '{entity}' AS entity, {entity}_id AS key, {_weighted('sum_')} FROM staged "
        f"WHERE status = 'valid' AND day >= {work.end_day - work.lookback_days} AND day < {work.end_day} GROUP BY ALL"
        for entity in COUNTED
    )
    return f"SELECT entity, key, {_rates(work, 'sum_{}', '{}')} FROM ({each}) ORDER BY entity, key"


def _sample(db: duckdb.DuckDBPyConnection, work: Work) -> dict[str, Any]:
    uniform = "(hash(xor(row_key, {salt})) >> 11)::DOUBLE / 9007199254740992"  # hash(a, b) is not independent for two b
    is_positive = " OR ".join(f"label_{name} = 1" for name, _ in LABELS)
    db.execute(f"""
        CREATE VIEW chosen AS
        WITH placed AS (
          SELECT *, CASE WHEN is_randomized THEN 'randomized' WHEN event_time >= {_time(work.eval_start_us)} THEN 'eval'
            WHEN event_time >= {_time(work.calibration_start_us)} AND {uniform.format(salt=work.salt + 1_000_003)}
              < {work.calibration_share} THEN 'calibration' ELSE 'train' END AS split
          FROM '{work.out}/impressions/*.parquet'
        ), rated AS (
          SELECT *, CASE WHEN split <> 'train' OR {is_positive} THEN 1.0 ELSE {work.negative_rate} END::DOUBLE AS rate
          FROM placed
        )
        SELECT *, {uniform.format(salt=work.salt)} < rate AS is_kept, 1.0 / (inclusion_probability * rate) AS weight FROM rated
    """)
    positives = ", ".join(f"sum(label_{name}) FILTER (is_kept) AS {name}" for name, _ in LABELS)
    counts = db.execute(f"""
        SELECT split, count(*), count(*) FILTER (is_kept), sum(weight) FILTER (is_kept), {positives}
        FROM chosen GROUP BY split
    """).fetchall()
    for split in ("train", "calibration", "eval", "randomized"):
        _write(db, f"SELECT * EXCLUDE (split, rate, is_kept) FROM chosen WHERE split = '{split}' AND is_kept ORDER BY row_key",
               work.out / "splits" / split)  # fmt: skip
    return {split: {"rows_seen": seen, "rows": rows, "weight_sum": float(weight)} for split, seen, rows, weight, *_ in counts}


def _write(db: duckdb.DuckDBPyConnection, query: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    db.execute(f"COPY ({query}) TO '{folder}/part-00000.parquet' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 1048576)")
