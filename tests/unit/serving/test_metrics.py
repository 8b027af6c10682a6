"""What is counted many requests at a time is what NumPy counts one by one."""

from __future__ import annotations

import numpy as np

from tests.unit.serving.wire import metric
from tidewheel.serving.gate import Gate, Limits
from tidewheel.serving.metrics import PENDING_REQUESTS, PENDING_ROWS, SCORE_EDGES, ServingMetrics, VersionCounts
from tidewheel.serving.protocol import InferRequest

LABELS, FEATURES = ("click", "like"), ("id", "price", "color", "recent")


def requests(number: int, *more: int) -> list[tuple[InferRequest, dict[str, np.ndarray]]]:
    """Requests of 1 to 9 candidates and of `more`, some values unknown."""
    rng = np.random.default_rng(0)
    found = []
    for size in (*rng.integers(1, 10, number).tolist(), *more):
        price = np.where(rng.random(size) < 0.3, np.nan, rng.random(size))
        color = rng.choice(np.array(["red", "blue", None], dtype=object), size)
        columns = {"id": rng.integers(0, 9, 1), "price": price, "color": color, "recent": rng.integers(0, 9, (1, size))}
        scores = {label: rng.random(size).astype(np.float32) for label in LABELS}
        found.append((InferRequest(id="", columns=columns, outputs=()), scores))
    return found


def metrics_of(sent: list[tuple[InferRequest, dict[str, np.ndarray]]]) -> ServingMetrics:
    metrics = ServingMetrics(Gate(Limits()), lambda: {"b1": 0.25, "b2": 0.75})
    metrics.versions["b1"] = VersionCounts(LABELS, FEATURES)
    for request, scores in sent:
        metrics.answered((0.1, 0.0, 0.002, 0.004, 0.0005), "b1", request, scores)
    return metrics


def test_scores_and_features_are_counted_exactly() -> None:
    sent = requests(3 * PENDING_REQUESTS + 7, 2 * PENDING_ROWS, PENDING_ROWS)
    text = metrics_of(sent).text()

    for label in LABELS:
        scores = np.concatenate([scores[label] for _, scores in sent])
        assert metric(text, "tidewheel_score_count", f'label="{label}"', 'bundle="b1"') == len(scores)
        assert np.isclose(metric(text, "tidewheel_score_sum", f'label="{label}"'), scores.astype(float).sum(), rtol=1e-5)
        for edge in SCORE_EDGES:
            found = metric(text, "tidewheel_score_bucket", f'label="{label}"', f'le="{edge:g}"')
            assert found == np.count_nonzero(scores <= edge)
    price = np.concatenate([request.columns["price"] for request, _ in sent])
    color = np.concatenate([request.columns["color"] for request, _ in sent])
    want = {"id": (len(sent), 0), "price": (len(price), np.isnan(price).sum()), "color": (len(color), (color == None).sum())}  # noqa: E711
    want["recent"] = (len(price), 0)
    for feature, (values, missing) in want.items():
        assert metric(text, "tidewheel_feature_values_total", f'feature="{feature}"') == values
        assert metric(text, "tidewheel_feature_missing_total", f'feature="{feature}"') == missing


def test_times_are_counted_by_stage_and_the_whole_is_without_the_reading() -> None:
    text = metrics_of(requests(4)).text()
    assert metric(text, "tidewheel_stage_seconds_count", 'stage="read"') == 4
    assert np.isclose(metric(text, "tidewheel_stage_seconds_sum", 'stage="read"'), 0.4)
    assert metric(text, "tidewheel_stage_seconds_bucket", 'stage="score"', 'le="0.003"') == 0
    assert metric(text, "tidewheel_stage_seconds_bucket", 'stage="score"', 'le="0.005"') == 4
    assert np.isclose(metric(text, "tidewheel_request_seconds_sum"), 4 * 0.0065)
    assert metric(text, "tidewheel_request_seconds_count") == 4


def test_answers_are_counted_by_status_and_what_has_no_scores_is_an_error() -> None:
    metrics = metrics_of(requests(2))
    for status in (400, 429, 429):
        metrics.refused(status)
    text = metrics.text()
    assert [metric(text, "tidewheel_requests_total", f'status="{status}"') for status in (200, 400, 429)] == [2, 1, 2]
    assert metric(text, "tidewheel_errors_total") == 3


def test_what_serves_and_its_share_are_said() -> None:
    text = metrics_of([]).text()
    assert metric(text, "tidewheel_bundle_info", 'bundle="b2"') == 1
    assert [metric(text, "tidewheel_bundle_share", f'bundle="{bundle}"') for bundle in ("b1", "b2")] == [0.25, 0.75]


def test_a_request_of_a_bundle_that_just_went_is_counted_all_the_same() -> None:
    metrics = metrics_of([])
    request, scores = requests(1)[0]
    metrics.answered((0.0,) * 5, "gone", request, scores)
    assert metric(metrics.text(), "tidewheel_requests_total", 'status="200"') == 1
