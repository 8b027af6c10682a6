"""What a candidate costs, and a budget for it."""

from __future__ import annotations

import pytest

from tidewheel.contracts.report import Latency
from tidewheel.errors import ConfigError
from tidewheel.ranker import OpenBundle
from tidewheel.ranker.encoding import Encoded
from tidewheel.ranker.latency import measure, refuse_slow

FOUND = Latency(candidates=500, runs=200, microseconds_per_candidate=3.2, median_microseconds_per_candidate=4.0)


def test_a_served_graph_is_timed_on_requests_of_500_candidates_although_there_are_fewer_rows(tiny_bundle: OpenBundle):
    encoders = tiny_bundle.encoders()
    columns = {feature.name: [1] for feature in encoders.features}
    row = encoders.encode(columns)
    graph = tiny_bundle.folder / tiny_bundle.model().graph
    found = measure(graph, tiny_bundle.manifest.labels, Encoded(row.ids, row.numbers))
    assert (found.candidates, found.runs) == (500, 200)
    assert 0 < found.microseconds_per_candidate <= found.median_microseconds_per_candidate


def test_a_student_over_its_budget_is_refused_with_both_numbers_and_what_to_do():
    with pytest.raises(ConfigError, match=r"takes 3.20 us a candidate .* is 3: make distill.network smaller, drop features"):
        refuse_slow(FOUND, 3.0)


@pytest.mark.parametrize("budget", [3.2, 10.0, 0.0])
def test_within_the_budget_or_without_one_it_passes(budget: float):
    refuse_slow(FOUND, budget)
