"""What a candidate costs in the graph that is served."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tidewheel.contracts.report import Latency
from tidewheel.errors import ConfigError
from tidewheel.ranker.encoding import Encoded
from tidewheel.ranker.scorer import Graph

CANDIDATES = 500  # of one request
RUNS = 200
WARM_UP = 20
QUANTILE = 0.1


def measure(graph: Path, labels: Sequence[str], rows: Encoded) -> Latency:
    """Time a served graph on one thread, a request of CANDIDATES at a time; encoding and transport are not in it.

    What else the machine does can only add to a run, so the figure that is judged is the lower decile of RUNS runs; the
    median of the same runs stands beside it.

    Args:
        rows: encoded rows to take the candidates from, one at least; taken again where they are fewer.
    """
    picked = np.arange(CANDIDATES) % len(rows)
    request = Encoded(rows.ids[picked], rows.numbers[picked])
    session = Graph(graph, tuple(labels), threads=1)
    seconds = np.empty(WARM_UP + RUNS)
    for at in range(len(seconds)):
        started = time.perf_counter()
        session.run(request)
        seconds[at] = time.perf_counter() - started
    lower, median = 1e6 / CANDIDATES * np.quantile(seconds[WARM_UP:], [QUANTILE, 0.5])
    return Latency(
        candidates=CANDIDATES,
        runs=RUNS,
        microseconds_per_candidate=float(lower),
        median_microseconds_per_candidate=float(median),
    )


def refuse_slow(found: Latency, max_microseconds_per_candidate: float) -> None:
    """Hold a student to its budget; 0: there is none.

    Raises:
        ConfigError: it is slower.
    """
    measured, budget = found.microseconds_per_candidate, max_microseconds_per_candidate
    if not budget or measured <= budget:
        return
    raise ConfigError(
        f"distill: the student takes {measured:.2f} us a candidate (lower decile of {found.runs} requests of "
        f"{found.candidates} candidates on one thread); distill.max_microseconds_per_candidate is {budget:g}: make "
        "distill.network smaller, drop features by distill.without_features, or raise the budget"
    )
