"""Every system is tried by the same rules: settings that repeat, and a choice of the fastest that is good enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.peer_job import Answer, Job
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
