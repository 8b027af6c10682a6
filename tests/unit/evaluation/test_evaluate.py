import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tidewheel.contracts.comparison import Comparability
from tidewheel.contracts.evaluation import Claim, EvaluateConfig
from tidewheel.contracts.evidence import Evaluation
from tidewheel.contracts.recipe import LabelConfig
from tidewheel.contracts.verdict import Phase
from tidewheel.errors import ContractError
from tidewheel.evaluation import evaluate
from tidewheel.evaluation.evaluate import Beside

LABELS = (LabelConfig(name="click"), LabelConfig(name="like", gated=False))
CLAIMS = (Claim(metric="auc", margin=0.02), Claim(metric="logloss", margin=0.02))
CONFIG = EvaluateConfig(min_auc={"click": 0.6}, slices=("tab",), claims=CLAIMS, replay="reported")


def log(rows=4000, seed=0):
    """A log with a known click probability, and that probability."""
    generator = np.random.default_rng(seed)
    truth = 1 / (1 + np.exp(-(generator.normal(size=rows) * 1.2 - 0.5)))
    table = pa.table(
        {
            "user_id": (users := generator.integers(0, rows // 4, rows)),
            "request_id": [f"{user}-{visit}" for user, visit in zip(users, generator.integers(0, 2, rows), strict=True)],
            "weight": generator.choice([1.0, 4.0], rows),
            "label_click": (generator.random(rows) < truth).astype(np.int8),
            "label_like": (generator.random(rows) < 0.02).astype(np.int8),
            "tab": generator.choice(["main", "side", "$x$ <b>"], rows, p=[0.6, 0.399, 0.001]),
        }
    )
    return table, truth


def scores(truth, **models):
    like = 0.02 + 0.01 * np.sin(np.arange(len(truth)))
    return {name: {"click": values, "like": like} for name, values in {"student": truth, **models}.items()}


def message_of(evaluation):
    return evaluation.verdict.explain()


def test_the_metrics_are_scikit_learns_and_lie_in_their_intervals():
    table, truth = log()
    found, _ = evaluate(table, scores(truth), LABELS, CONFIG)
    labels, weight = table["label_click"].to_numpy(), table["weight"].to_numpy()
    click = found.metrics["student"]["click"]
    assert click["auc"].value == pytest.approx(roc_auc_score(labels, truth, sample_weight=weight), abs=1e-9)
    assert click["logloss"].value == pytest.approx(log_loss(labels, truth, sample_weight=weight), abs=1e-9)
    assert click["calibration_ratio"].value == pytest.approx((weight @ truth) / (weight @ labels))
    assert click["auc"].effective_rows == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert click.pop("ndcg").value is None  # of a sampled log nobody knows the places
    for estimate in click.values():
        assert estimate.lower <= estimate.value <= estimate.upper
    assert found.verdict.is_successful
    assert found.comparison.differences == {}
    assert Evaluation.parse(found.to_json(), "again") == found


def test_the_truth_passes_against_a_noisy_production_and_noise_fails_against_the_truth():
    table, truth = log()
    noise = np.clip(truth + np.random.default_rng(1).normal(0, 0.3, len(truth)), 0.01, 0.99)
    better, _ = evaluate(table, scores(truth, production=noise), LABELS, CONFIG)
    worse, _ = evaluate(table, scores(noise, production=truth), LABELS, CONFIG)
    assert better.verdict.is_successful
    assert worse.verdict.phase is Phase.FAILED
    assert better.comparison.differences["click"]["auc"].value == pytest.approx(
        -worse.comparison.differences["click"]["auc"].value
    )


def test_a_student_equal_to_production_differs_by_exactly_nothing():
    table, truth = log()
    found, _ = evaluate(table, scores(truth, production=truth), LABELS, CONFIG)
    difference = found.comparison.differences["click"]["auc"]
    assert (difference.value, difference.lower, difference.upper) == (0.0, 0.0, 0.0)


def test_overconfident_probabilities_rank_as_well_and_fail_on_calibration():
    table, truth = log()
    found, _ = evaluate(table, scores(np.clip(truth * 1.5, 0, 1)), LABELS, CONFIG)
    assert found.verdict.phase is Phase.FAILED
    assert "calibration click" in message_of(found)


def test_every_slice_is_measured_and_a_tiny_one_has_no_interval():
    table, truth = log()
    found, figures = evaluate(table, scores(truth), LABELS, CONFIG)
    assert set(found.comparison.slices["tab"]) == {"main", "side", "$x$ <b>"}
    main = table["tab"].to_numpy(zero_copy_only=False) == "main"
    labels, weight = table["label_click"].to_numpy(), table["weight"].to_numpy()
    expected = roc_auc_score(labels[main], truth[main], sample_weight=weight[main])
    assert found.comparison.slices["tab"]["main"]["click"]["auc"].value == pytest.approx(expected)
    assert found.comparison.slices["tab"]["$x$ <b>"]["click"]["auc"].value is None
    assert figures.slices == found.comparison.slices


def test_scores_that_are_not_probabilities_are_an_error_and_measure_nothing():
    table, truth = log(400)
    for broken in (float("nan"), 1.5, -0.1):
        values = truth.copy()
        values[7] = broken
        found, _ = evaluate(table, scores(values), LABELS, CONFIG)
        assert found.verdict.phase is Phase.ERROR
        assert found.metrics["student"]["click"]["auc"].value is None
        assert "click: 1 of 400 scores are not" in message_of(found)


def test_production_scores_that_are_broken_are_an_error_too():
    table, truth = log(400)
    found, _ = evaluate(table, scores(truth, production=np.full(400, np.nan)), LABELS, CONFIG)
    assert found.verdict.phase is Phase.ERROR
    assert "click: production: 400 of 400 scores are not finite" in message_of(found)


def test_no_rows_are_inconclusive():
    table, truth = log(400)
    found, figures = evaluate(table.slice(0, 0), scores(truth[:0], production=truth[:0]), LABELS, CONFIG)
    assert found.verdict.phase is Phase.INCONCLUSIVE
    assert figures.reliability["student"]["click"] == ()


def test_a_log_of_one_user_is_inconclusive():
    table, truth = log(400)
    table = table.set_column(0, "user_id", pa.array([1] * 400))
    assert evaluate(table, scores(truth), LABELS, CONFIG)[0].verdict.phase is Phase.INCONCLUSIVE


def test_weights_that_are_not_positive_are_an_error():
    table, truth = log(400)
    table = table.drop_columns(["weight"]).append_column("weight", pa.array([1.0] * 399 + [0.0]))
    assert evaluate(table, scores(truth), LABELS, CONFIG)[0].verdict.phase is Phase.ERROR


def test_what_the_caller_got_wrong_is_said():
    table, truth = log(400)
    with pytest.raises(ContractError, match="columns tab are missing"):
        evaluate(table.drop_columns(["tab"]), scores(truth), LABELS, CONFIG)
    with pytest.raises(ContractError, match="label like is missing"):
        evaluate(table, {"student": {"click": truth}}, LABELS, CONFIG)
    with pytest.raises(ContractError, match=r"shape \(399,\); expected \(400,\)"):
        evaluate(table, scores(truth[:-1]), LABELS, CONFIG)


def test_the_reliability_curve_of_the_truth_lies_on_the_diagonal():
    table, truth = log(20_000)
    _, figures = evaluate(table, scores(truth), LABELS, CONFIG)
    bins = figures.reliability["student"]["click"]
    assert sum(b.rows for b in bins) == 20_000
    # four deviations of a rate over a fifteenth of the effective rows
    assert max(abs(b.predicted - b.actual) for b in bins) < 4 * 0.5 / (20_000 / 1.4 / 15) ** 0.5


def test_a_model_that_is_worse_in_one_slice_alone_is_blocked_by_that_slice():
    table, truth = log(20_000)
    side = table["tab"].to_numpy(zero_copy_only=False) == "side"
    confused = np.where(side, 0.5 * truth + 0.5 * np.random.default_rng(3).permutation(truth), truth)
    config = CONFIG.model_copy(
        update={"claims": (Claim(metric="auc", margin=0.2),), "max_calibration_error": 0.5, "max_ece": 0.5}
    )
    found, _ = evaluate(table, scores(confused, production=truth), LABELS, config)
    assert found.verdict.phase is Phase.FAILED
    assert message_of(found).startswith(
        "auc in slices vs production: worse by more than 0.0300 (holm, 2 looked at, 1 too small to judge): tab=side click -0."
    )


def randomized(rows=3000, seed=5):
    table, truth = log(rows, seed)
    whole = {"weight": pa.array(np.ones(rows)), "propensity": pa.array(np.full(rows, 0.1))}
    for name, column in whole.items():
        table = table.drop_columns([name] if name in table.column_names else []).append_column(name, column)
    return table, truth


def test_randomized_rows_are_measured_apart_and_replayed():
    table, truth = log()
    rows, chance = randomized()
    noise = np.clip(truth + np.random.default_rng(1).normal(0, 0.1, len(truth)), 0.01, 0.99)
    noisy = np.clip(chance + np.random.default_rng(1).normal(0, 0.1, len(chance)), 0.01, 0.99)
    beside = Beside(randomized=rows, randomized_scores=scores(chance, production=noisy))
    config = CONFIG.model_copy(update={"replay": "required", "top": 1, "max_replay_drop": 0.2})
    found, _ = evaluate(table, scores(truth, production=noise), LABELS, config, beside)
    labels = rows["label_click"].to_numpy()
    assert found.comparison.randomized["student"]["click"]["auc"].value == pytest.approx(roc_auc_score(labels, chance))
    assert found.comparison.replay["click"].judged_by == "snips"
    assert 0 < found.comparison.stability["click"]["top_churn"].value < 1  # of the randomized requests: they are whole
    assert found.verdict.is_successful, found.verdict.explain()
    assert any(reason.check == "replay click vs production" for reason in found.verdict.reasons)


def test_an_earlier_release_that_was_better_holds_the_candidate_back():
    table, truth = log()
    random = np.random.default_rng(1)
    noise = np.clip(truth + random.normal(0, 0.25, len(truth)), 0.01, 0.99)
    config = CONFIG.model_copy(update={"max_calibration_error": 0.5, "max_ece": 0.5, "max_slice_drop": {}})
    alone, _ = evaluate(table, scores(noise, production=noise), LABELS, config)
    found, _ = evaluate(
        table, scores(noise, production=noise), LABELS, config, Beside(releases={"d" * 64: {"click": truth}, "e" * 64: {}})
    )
    assert alone.verdict.is_successful
    assert found.verdict.phase is Phase.FAILED
    assert "tidewheel rollback --to dddddddddddd" in message_of(found)
    assert found.comparison.releases["d" * 64]["click"]["auc"].upper < 0
    assert found.comparison.releases["e" * 64] == {}


def test_the_same_impression_twice_is_an_error_whichever_split_it_is_in():
    table, truth = log(400)
    keyed = table.append_column("row_key", pa.array([7, *range(399)]))
    found, _ = evaluate(keyed, scores(truth), LABELS, CONFIG)
    assert found.verdict.phase is Phase.ERROR
    assert "1 of 400 rows are there twice (row_key)" in message_of(found)
    rows, chance = randomized(300)
    apart = table.append_column("row_key", pa.array(range(400)))
    both = Beside(randomized=rows.append_column("row_key", pa.array(range(399, 699))), randomized_scores=scores(chance))
    found, _ = evaluate(apart, scores(truth), LABELS, CONFIG, both)
    assert "1 of 700 rows are there twice (row_key)" in message_of(found)


def test_scores_of_other_rows_are_refused_wherever_they_are():
    table, truth = log(400)
    rows, chance = randomized(300)
    with pytest.raises(ContractError, match=r"evaluation rows: scores of dddd.*shape \(399,\); expected \(400,\)"):
        evaluate(table, scores(truth), LABELS, CONFIG, Beside(releases={"dddd": {"click": truth[1:]}}))
    with pytest.raises(ContractError, match=r"randomized rows: scores of student.*shape \(299,\); expected \(300,\)"):
        evaluate(table, scores(truth), LABELS, CONFIG, Beside(randomized=rows, randomized_scores=scores(chance[1:])))


def test_a_propensity_that_is_none_is_refused():
    table, truth = log(400)
    rows, chance = randomized(300)
    broken = rows.drop_columns(["propensity"]).append_column("propensity", pa.array([0.0, *[0.1] * 299]))
    with pytest.raises(ContractError, match=r"propensity of 1 of 300 rows is not in \(0, 1\]"):
        evaluate(table, scores(truth), LABELS, CONFIG, Beside(randomized=broken, randomized_scores=scores(chance)))


def test_a_production_with_features_that_are_gone_is_marked_and_compared_on_the_rest():
    table, truth = log()
    found, _ = evaluate(table, scores(truth, production=truth), LABELS, CONFIG, Beside(missing_features=("price",)))
    assert found.comparison.baseline is Comparability.INCOMPATIBLE
    assert found.comparison.missing_features == ("price",)
    assert any("BASELINE_INCOMPATIBLE" in reason.message for reason in found.verdict.warnings)


def test_whole_lists_have_an_ndcg_and_a_churn_and_sampled_ones_do_not():
    table, truth = log()
    whole = table.drop_columns(["weight"]).append_column("weight", pa.array(np.ones(len(truth))))
    found, _ = evaluate(whole, scores(truth, production=truth**2), LABELS, CONFIG)
    assert 0 < found.metrics["student"]["click"]["ndcg"].value < 1
    assert found.comparison.stability["click"]["top_churn"].value == 0.0
    assert found.comparison.stability["click"]["kendall_tau"].value == pytest.approx(1.0)
    sampled, _ = evaluate(table, scores(truth, production=truth**2), LABELS, CONFIG)
    assert sampled.comparison.stability["click"]["top_churn"].value is None


def test_labels_that_only_production_knows_are_left_alone():
    table, truth = log()
    both = scores(truth, production=truth)
    both["production"]["share"] = truth
    found, figures = evaluate(table, both, LABELS, CONFIG)
    assert found.verdict.is_successful
    assert set(found.comparison.differences) == {"click", "like"}
    assert set(figures.reliability["production"]) == {"click", "like"}


def test_a_candidate_that_orders_no_request_is_not_passed_for_lack_of_an_order():
    """One score a request: the AUC over all rows says nothing of it."""
    table, truth = log()
    of_request = np.unique(np.asarray(table["request_id"].to_pylist()), return_inverse=True)[1]
    same = (np.bincount(of_request, truth) / np.bincount(of_request))[of_request]
    found, _ = evaluate(table, scores(same, production=truth), LABELS, CONFIG)
    (reason,) = (one for one in found.verdict.reasons if one.check == "rank agreement click with production")
    assert reason.phase is Phase.INCONCLUSIVE
    alone = table.drop_columns(["request_id"]).append_column("request_id", pa.array([str(at) for at in range(len(truth))]))
    found, _ = evaluate(alone, scores(truth, production=truth), LABELS, CONFIG)
    assert "kendall_tau" not in found.comparison.stability["click"]
    assert found.verdict.is_successful, message_of(found)
