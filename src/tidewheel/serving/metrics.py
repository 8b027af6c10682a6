"""What a server tells Prometheus. Names are a public surface: dashboards and the canary on a cluster read them.

A request costs a few microseconds here: what has to be counted by value is put aside and counted many requests at a time, when
the caller has had time to take its answer.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tidewheel.serving.gate import Gate

if TYPE_CHECKING:
    from tidewheel.serving.log_process import LogProcess
    from tidewheel.serving.protocol import InferRequest
    from tidewheel.serving.siblings import Siblings

LATENCY_BUCKETS_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
STAGE_BUCKETS_SECONDS = (0.00005, 0.0001, 0.0002, *LATENCY_BUCKETS_SECONDS)
STAGES = ("read", "wait", "decode", "score", "encode")
SCORE_EDGES = np.array([0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
_SCORE_NAMES = [*(f"{edge:g}" for edge in SCORE_EDGES), "+Inf"]
PENDING_REQUESTS = 32
PENDING_ROWS = 256


class Seconds:
    """A histogram of times."""

    def __init__(self, buckets: Sequence[float]) -> None:
        self._buckets = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._buckets, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        names = [*(str(edge) for edge in self._buckets), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)


class VersionCounts:
    """What one bundle was sent and what it said: put aside by `add`, counted by `count`, to be called once it `is_due`."""

    def __init__(self, labels: Iterable[str], features: Iterable[str]) -> None:
        self.requests = 0
        # Cumulative, as Prometheus has them.
        self.scores = {label: np.zeros(len(_SCORE_NAMES), dtype=np.int64) for label in labels}
        self.sums = dict.fromkeys(self.scores, 0.0)
        self.values: dict[str, int] = dict.fromkeys(features, 0)
        self.missing = dict(self.values)
        self._pending: list[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]] = []
        self._rows = 0

    def add(self, request: InferRequest, scores: Mapping[str, np.ndarray]) -> None:
        self.requests += 1
        self._pending.append((request.columns, scores))
        self._rows += len(next(iter(scores.values()), ()))

    @property
    def is_due(self) -> bool:
        """More would be much at once, and out of the cache."""
        return len(self._pending) >= PENDING_REQUESTS or self._rows >= PENDING_ROWS

    def count(self) -> None:
        """Count what was put aside."""
        if not self._pending:
            return
        for label, cumulative in self.scores.items():
            found = np.sort(_joined([scores[label] for _, scores in self._pending]))  # there are fewer edges than scores
            cumulative[:-1] += np.searchsorted(found, SCORE_EDGES, side="right")
            cumulative[-1] += len(found)
            self.sums[label] += float(found.sum(dtype=np.float64))
        for name in self.values:
            values = _joined([columns[name] for columns, _ in self._pending])
            self.values[name] += values.size
            if values.dtype.kind == "f":
                if math.isnan(values.dot(values)):
                    self.missing[name] += int(np.count_nonzero(values != values))
            elif values.dtype.kind == "O":
                self.missing[name] += values.tolist().count(None)
        self._pending.clear()
        self._rows = 0


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    return columns[0] if len(columns) == 1 else np.concatenate([column.ravel() for column in columns])


class LogCounters:
    """What became of the rows of the hybrid log, by part: of the logs that are open and of those that were."""

    _COUNTERS = {
        "offered": "Rows taken into the queue of the log",
        "dropped": "Rows not taken because the queue was full",
        "unwritable": "Rows of a value that its column cannot hold",
        "written": "Rows in published segments",
    }

    def __init__(self) -> None:
        self._logs: list[LogProcess] = []
        self._before: Tally[tuple[str, str]] = Tally()

    def open(self, log: LogProcess) -> None:
        self._logs.append(log)

    def close(self, log: LogProcess) -> None:
        """Its counts stay; it must have written everything."""
        self._logs.remove(log)
        self._before.update(self._counts(log))

    def _counts(self, log: LogProcess) -> dict[tuple[str, str], int]:
        names = (*self._COUNTERS, "segments", "failures")
        return {(part.value, name): getattr(s.counts, name) for part, s in log.streams.items() for name in names}

    def families(self) -> Iterable[Metric]:
        texts = {f"{name}_rows": text for name, text in self._COUNTERS.items()}
        texts |= {"segments": "Segments published", "failures": "Writes that the disk refused"}
        counts = Tally(self._before)
        queued: Tally[str] = Tally()
        for log in tuple(self._logs):
            counts.update(self._counts(log))
            queued.update({part.value: stream.counts.queued for part, stream in log.streams.items()})
        parts = sorted({part for part, _ in counts})
        for name, text in texts.items():
            family = CounterMetricFamily(f"tidewheel_log_{name}", text, labels=["part"])
            for part in parts:
                family.add_metric([part], counts[part, name.removesuffix("_rows")])
            yield family
        waiting = GaugeMetricFamily("tidewheel_log_queued_rows", "Rows in no segment yet", labels=["part"])
        for part in parts:
            waiting.add_metric([part], queued[part])
        yield waiting


class ServingMetrics(Collector):
    """The metrics of a server: of one process, and of the others it has.

    Args:
        shares: digest -> share of users, of the bundles that are served now.
        siblings: the other processes, where the server may have some.
    """

    def __init__(self, gate: Gate, shares: Callable[[], Mapping[str, float]], siblings: Siblings | None = None) -> None:
        self._gate = gate
        self._shares = shares
        self._siblings = siblings
        self.versions: dict[str, VersionCounts] = {}
        self.assignment_number = 0
        self.load_failures = 0
        self.swaps = 0
        self.is_due = False  # there has come to be enough to `count`; whoever sees to it says so here
        self.log: LogCounters | None = None
        self._statuses: Tally[int] = Tally()
        self._latency = Seconds(LATENCY_BUCKETS_SECONDS)
        self._stages = [Seconds(STAGE_BUCKETS_SECONDS) for _ in STAGES]
        self._refused_events = 0

    def answered(self, stages: Sequence[float], bundle: str, request: InferRequest, scores: Mapping[str, np.ndarray]) -> None:
        """A request with scores; `stages`: seconds of each of STAGES. Nothing is counted by value yet: see `count`."""
        self._statuses[200] += 1
        self._latency.observe(sum(stages[1:]))
        for histogram, seconds in zip(self._stages, stages, strict=True):
            histogram.observe(seconds)
        if (counts := self.versions.get(bundle)) is not None:
            was_due = counts.is_due
            counts.add(request, scores)
            self.is_due |= counts.is_due and not was_due

    def count(self) -> None:
        """Count by value what is due."""
        self.is_due = False
        for counts in self.versions.values():
            if counts.is_due:
                counts.count()

    def refused(self, status: int) -> None:
        """A request without scores."""
        self._statuses[status] += 1

    def refused_events(self, number: int) -> None:
        self._refused_events += number

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self)

    def collect(self) -> Iterable[Metric]:
        families = self.families()
        return families if self._siblings is None else self._siblings.with_others(families)

    def families(self) -> Iterator[Metric]:
        """Those of this process alone."""
        yield GaugeMetricFamily("tidewheel_processes", "Processes of this server that answer", value=1)
        yield from self._request_families()
        yield from self._version_families()
        if self.log is not None:
            yield from self.log.families()

    def _request_families(self) -> Iterable[Metric]:
        answers = CounterMetricFamily("tidewheel_requests", "Inference requests by status", labels=["status"])
        for status, number in sorted({200: 0, **self._statuses}.items()):
            answers.add_metric([str(status)], number)
        yield answers
        errors = sum(number for status, number in self._statuses.items() if status != 200)
        yield CounterMetricFamily("tidewheel_errors", "Inference requests without scores", value=errors)
        refused = self._refused_events
        yield CounterMetricFamily("tidewheel_refused_events", "Events of clients that were refused", value=refused)
        latency = HistogramMetricFamily("tidewheel_request_seconds", "Time from a whole request to its answer", labels=[])
        self._latency.add_to(latency, [])
        yield latency
        stages = HistogramMetricFamily("tidewheel_stage_seconds", "Time of an answered request by stage", labels=["stage"])
        for name, histogram in zip(STAGES, self._stages, strict=True):
            histogram.add_to(stages, [name])
        yield stages
        yield GaugeMetricFamily("tidewheel_waiting_requests", "Requests being read or scored", value=self._gate.waiting)
        held = self._gate.bytes + self._gate.unsent_bytes
        yield GaugeMetricFamily("tidewheel_waiting_bytes", "Bytes of their bodies, and of answers not taken yet", value=held)
        for name, text, counts in (
            ("shed_requests", "Requests refused with 429, by what there was too much of", self._gate.shed),
            ("closed_connections", "Connections that the server closed, by reason", self._gate.closed),
        ):
            family = CounterMetricFamily(f"tidewheel_{name}", text, labels=["reason"])
            for reason, number in sorted(counts.items()):
                family.add_metric([reason], number)
            yield family

    def _version_families(self) -> Iterable[Metric]:
        info = GaugeMetricFamily("tidewheel_bundle_info", "The bundles that are served", labels=["bundle"])
        share = GaugeMetricFamily("tidewheel_bundle_share", "Share of users that a bundle serves", labels=["bundle"])
        for bundle, part in self._shares().items():
            info.add_metric([bundle], 1)
            share.add_metric([bundle], part)
        yield from (info, share)
        number = self.assignment_number
        yield GaugeMetricFamily("tidewheel_assignment_number", "Number of the assignment that holds here", value=number)
        yield CounterMetricFamily("tidewheel_version_swaps", "Assignments that came into force", value=self.swaps)
        failures = self.load_failures
        yield CounterMetricFamily("tidewheel_version_load_failures", "Assignments that could not be loaded", value=failures)
        requests = CounterMetricFamily("tidewheel_bundle_requests", "Requests that a bundle scored", labels=["bundle"])
        scores = HistogramMetricFamily("tidewheel_score", "Calibrated probabilities served", labels=["label", "bundle"])
        values = CounterMetricFamily("tidewheel_feature_values", "Values sent", labels=["feature", "bundle"])
        missing = CounterMetricFamily("tidewheel_feature_missing", "Of them null", labels=["feature", "bundle"])
        for bundle, counts in self.versions.items():
            counts.count()
            requests.add_metric([bundle], counts.requests)
            for label, cumulative in counts.scores.items():
                buckets = list(zip(_SCORE_NAMES, cumulative.tolist(), strict=True))
                scores.add_metric([label, bundle], buckets, counts.sums[label])
            for feature, number in counts.values.items():
                values.add_metric([feature, bundle], number)
                missing.add_metric([feature, bundle], counts.missing[feature])
        yield from (requests, scores, values, missing)
