"""What bench/data_plane.py and its peers agree on: the work, as numbers, and how a phase of it is timed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.window import Window, parse_time

ROOT = Path(__file__).parents[1]
COUNTED = ("user", "item", "author")
LABELS = (("click", "is_click"), ("long_view", "long_view"), ("like", "is_like"), ("profile_enter", "is_profile_enter"))
RATE_LABELS = ("click", "long_view")


@dataclass(frozen=True)
class Work:
    """One run of ingest and sample. Moments are microseconds since 1970 (UTC), days are days since 1970."""

    data: str
    out: Path
    cores: int
    start_us: int
    end_us: int
    eval_start_us: int
    calibration_start_us: int
    first_day: int
    end_day: int
    lookback_days: int
    smoothing: float
    priors: dict[str, float]
    salt: int
    negative_rate: float
    calibration_share: float

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"out": str(self.out)})

    @classmethod
    def parse(cls, text: str) -> Work:
        found = json.loads(text)
        return cls(**(found | {"out": Path(found["out"])}))


def recipe(negative_rate: float) -> Recipe:
    """recipes/kuairand.yaml, with negatives of the training rows kept at this rate."""
    text = (ROOT / "recipes" / "kuairand.yaml").read_text()
    found = yaml.safe_load(text)
    found["sample"]["negative_rate"] = negative_rate
    return Recipe.model_validate(found)


def window(of: Recipe, end: str) -> Window:
    return Window.ending(parse_time(end), of.window.days)


def work_of(of: Recipe, end: str, data: Path, out: Path, cores: int) -> Work:
    span, counters = window(of, end), of.ingest.counters
    eval_start = span.end - timedelta(days=of.window.eval_days)
    return Work(
        data=str(data),
        out=out,
        cores=cores,
        start_us=_microseconds(span.start),
        end_us=_microseconds(span.end),
        eval_start_us=_microseconds(eval_start),
        calibration_start_us=_microseconds(eval_start - timedelta(days=of.sample.calibration_days)),
        first_day=_microseconds(span.start) // 86_400_000_000 - counters.lookback_days,
        end_day=_microseconds(span.end) // 86_400_000_000,
        lookback_days=counters.lookback_days,
        smoothing=counters.smoothing,
        priors={label.name: label.prior for label in of.labels},
        salt=of.sample.salt,
        negative_rate=of.sample.negative_rate,
        calibration_share=of.sample.calibration_share,
    )


def run_ours(work: Work, end: str) -> dict[str, dict[str, float]]:
    """Ingest and sample as their steps call them: the only place that knows how."""
    from tidewheel.logs import embedded_session, ingest
    from tidewheel.sampling import sample

    of = recipe(work.negative_rate)
    span, names = window(of, end), [label.name for label in of.labels]
    with phase("ingest"), embedded_session() as spark:
        ingest(spark, of.source, of.labels, of.features, of.ingest, span, work.out, Path(work.data))
    with phase("sample"):
        splits = sample(work.out / "impressions", of.sample, of.window, span, names, work.out / "splits").splits
    return {
        name: {"rows_seen": split.statistics["rows_seen"], "rows": split.rows, "weight_sum": split.weight_sum}
        for name, split in splits.items()
    }


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Reports the block's seconds to whoever started this process."""
    started = time.monotonic()
    yield
    print(json.dumps({"phase": name, "seconds": time.monotonic() - started}), flush=True)


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
