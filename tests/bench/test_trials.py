"""Every system is tried by the same rules: settings that repeat, and a choice of the fastest that is good enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import ranker_vs_peers
from bench.peer_job import Answer, Job
from bench.ranker_vs_peers import Training
from bench.search_space import MODELS
from bench.train_speed import Chosen, Trained, fastest


def trained(rows_per_second: float, auc: float) -> Trained:
    answer = Answer(int(rows_per_second), 1.0, 1.0, 0.0, 0, 0, 0)
    return Trained(Chosen(batch_size=1024, learning_rate=0.001), answer, auc)


def test_the_fastest_way_whose_auc_is_not_below_the_floor_is_taken() -> None:
    quick, good, slow = trained(300, 0.70), trained(200, 0.729), trained(100, 0.73)
    assert fastest([quick, good, slow], floor=0.728) is good


def test_the_best_auc_is_taken_where_no_way_reaches_the_floor() -> None:
    assert fastest([trained(300, 0.70), trained(200, 0.72)], floor=0.73).auc == 0.72


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.key)
def test_the_first_trial_is_the_defaults_and_others_repeat_themselves(model) -> None:
    assert model.settings(0) == model.defaults
    assert model.settings(3) == model.settings(3)
    assert len({str(model.settings(trial)) for trial in range(20)}) == 20


def test_a_row_more_in_the_table_leaves_what_the_other_rows_draw() -> None:
    model = MODELS[0]
    longer = replace(model, space=model.space | {"network.new": (1, 2)})
    assert longer.settings(5) == model.settings(5) | {"network.new": longer.settings(5)["network.new"]}


def test_every_model_of_a_library_draws_the_same_shared_settings_by_name() -> None:
    shared = {"learning_rate", "batch_size", "embedding_dim", "dropout", "hidden", "model"}
    assert all(shared <= set(model.space) for model in MODELS if model.system != "ours")


def test_a_job_survives_its_line() -> None:
    job = Job("dcn", ("click",), {"hidden": [8]}, 2, 0, 1, "a", "b", "c", ("click",))
    assert Job.parse(job.to_json()) == job


def test_our_results_are_measured_again_with_other_code_and_a_library_s_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[str, set[str]] = {"ours": set(), "rechub": set()}
    for code in ("before", "after"):
        monkeypatch.setattr(ranker_vs_peers, "code_digest", lambda code=code: code)
        for model in MODELS:
            if model.key in ("ours/ranker", "rechub/mmoe"):
                keys[model.system].add(Training("trial", model, ("click",), model.defaults, 2, "tune", 0).key)
    assert len(keys["ours"]) == 2
    assert len(keys["rechub"]) == 1


def test_a_trial_of_a_library_stops_on_the_gated_labels_and_its_final_run_does_not_stop() -> None:
    model = next(model for model in MODELS if model.key == "rechub/mmoe")
    labels, gated = ("click", "long_view", "like"), ("click", "long_view")
    trial, final = (Training(phase, model, labels, model.defaults, 2, "tune", 0) for phase in ("trial", "final"))
    assert trial.job(Path("a"), Path("b"), 1, gated).stops_on == gated
    assert final.job(Path("a"), Path("b"), 1, gated).stops_on == ()
