"""What a server tells Prometheus. Names are a public surface: dashboards and the canary on a cluster read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from tidewheel.serving.hybrid_log import HybridLog

LATENCY_BUCKETS_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
SCORE_EDGES = np.array([0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


class ScoreHistogram(Collector):
    """Histogram of scores by label, counted a request at a time: one observation a score would cost more than the model."""

    def __init__(self, labels: Iterable[str]) -> None:
        self._counts = {label: np.zeros(len(SCORE_EDGES) + 1, dtype=np.int64) for label in labels}
        self._sums = dict.fromkeys(self._counts, 0.0)

    def observe(self, scores: Mapping[str, np.ndarray]) -> None:
        """Count (C,) scores of each label."""
        for label, values in scores.items():
            self._counts[label] += np.bincount(np.searchsorted(SCORE_EDGES, values), minlength=len(SCORE_EDGES) + 1)
            self._sums[label] += float(values.sum())

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily("tidewheel_score", "Calibrated probabilities served", labels=["label"])
        for label, counts in self._counts.items():
            names = [*(f"{edge:g}" for edge in SCORE_EDGES), "+Inf"]
            cumulative = np.cumsum(counts).tolist()
            family.add_metric([label], list(zip(names, cumulative, strict=True)), self._sums[label])
        yield family


class LogCounters(Collector):
    """What became of the rows of the hybrid log, by part."""

    _COUNTERS = {
        "offered": "Rows taken into the queue of the log",
        "dropped": "Rows not taken because the queue was full",
        "unwritable": "Rows of a value that its column cannot hold",
        "written": "Rows in published segments",
    }

    def __init__(self, log: HybridLog) -> None:
        self._log = log

    def collect(self) -> Iterable[Metric]:
        families: list[CounterMetricFamily | GaugeMetricFamily] = []
        for name, text in self._COUNTERS.items():
            families.append(CounterMetricFamily(f"tidewheel_log_{name}_rows", text, labels=["part"]))
        families.append(CounterMetricFamily("tidewheel_log_segments", "Segments published", labels=["part"]))
        families.append(CounterMetricFamily("tidewheel_log_failures", "Writes that the disk refused", labels=["part"]))
        families.append(GaugeMetricFamily("tidewheel_log_queued_rows", "Rows in no segment yet", labels=["part"]))
        for part, stream in self._log.streams.items():
            counts = stream.counts
            values = [*(getattr(counts, name) for name in self._COUNTERS), counts.segments, counts.failures, counts.queued]
            for family, value in zip(families, values, strict=True):
                family.add_metric([part.value], value)
        return families


class ServingMetrics:
    """The metrics of one server process, in a registry of their own."""

    def __init__(self, bundle: str, labels: Iterable[str], log: HybridLog | None = None) -> None:
        self._registry = CollectorRegistry()
        info = Gauge("tidewheel_bundle_info", "The bundle that is served", ["bundle"], registry=self._registry)
        info.labels(bundle=bundle).set(1)
        self._answers = Counter("tidewheel_requests", "Inference requests by status", ["status"], registry=self._registry)
        self._latency = Histogram(
            "tidewheel_request_seconds",
            "Time from a whole request to its answer",
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=self._registry,
        )
        self._ok = self._answers.labels(status="200")
        self._errors = Counter("tidewheel_errors", "Inference requests without scores", registry=self._registry)
        self._scores = ScoreHistogram(labels)
        self._registry.register(self._scores)
        self._refused_events = Counter(
            "tidewheel_refused_events", "Events of clients that were refused", registry=self._registry
        )
        if log is not None:
            self._registry.register(LogCounters(log))

    def answered(self, seconds: float, scores: Mapping[str, np.ndarray]) -> None:
        self._ok.inc()
        self._latency.observe(seconds)
        self._scores.observe(scores)

    def refused(self, status: int) -> None:
        self._answers.labels(status=str(status)).inc()
        self._errors.inc()

    def refused_events(self, number: int) -> None:
        self._refused_events.inc(number)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
