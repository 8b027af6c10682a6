"""Training: it learns what is there, stops and goes on bit by bit, and listens to a teacher."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from tidewheel.contracts.learning import DistillationConfig, OptimizerConfig, TrainConfig
from tidewheel.contracts.network import NetworkConfig
from tidewheel.errors import ConfigError
from tidewheel.ranker import GraphScorer, Scorer, columns_of
from tidewheel.ranker.encoding import Encoders
from tidewheel.ranker.loss import multi_task_loss
from tidewheel.ranker.model import Network, Ranker
from tidewheel.ranker.scorer import sigmoid
from tidewheel.store import Store, local
from tidewheel.training import loop
from tidewheel.training.checkpoint import Checkpoints
from tidewheel.training.encode import encoded_rows, fitted_encoders
from tidewheel.training.loader import ShuffledRows
from tidewheel.training.optimizer import Optimizer
from tidewheel.training.rows import EncodedRows
from tidewheel.training.source import labels_of
from tidewheel.training.teaching import Teacher
from tidewheel.training.train import fit_here, new_ranker, objective_of, train

CONFIG = TrainConfig(
    network=NetworkConfig(embedding_dim=4, cross_layers=1, cross_rank=4, experts=2, hidden=(8,), dropout=0.2),
    optimizer=OptimizerConfig(epochs=2, batch_size=256, learning_rate=0.01),
    checkpoint_every_steps=3,
)


@pytest.fixture(scope="module")
def rows(tiny_run, tmp_path_factory: pytest.TempPathFactory) -> tuple[EncodedRows, Network]:
    recipe, folder = tiny_run.recipe, tmp_path_factory.mktemp("rows")
    encoders = fitted_encoders(tiny_run.train_dir, recipe.features, recipe.label_names, folder)
    return (
        encoded_rows(tiny_run.train_dir, encoders, recipe.label_names, folder),
        Network.of(CONFIG.network, encoders, recipe.label_names),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def assert_equal_weights(one: Ranker, other: Ranker) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_equal_seeds_give_equal_weights_and_leave_the_global_random_state_alone(tiny_run, rows):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, report = fit_here(*rows, tiny_run.recipe.labels, CONFIG)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert_equal_weights(one, fit_here(*rows, tiny_run.recipe.labels, CONFIG)[0])
    assert (report.rows, report.steps, report.resumed_at, report.stalls) == (4000, 16, 0, ())


class StoppedError(Exception):
    """Stands for a process that is killed."""


FOUR_EPOCHS = CONFIG.model_copy(update={"optimizer": CONFIG.optimizer.model_copy(update={"epochs": 4})})


def stop_at(share: float) -> Callable[[float, str], None]:
    def killed(done: float, words: str) -> None:
        if done >= share:
            raise StoppedError

    return killed


@pytest.mark.parametrize(
    ("stop_after", "task_weighting"),  # in the second, third and fourth epoch
    [(0.3, "fixed"), (0.6, "fixed"), (0.9, "fixed"), (0.6, "uncertainty")],
)
def test_training_that_was_stopped_goes_on_bit_by_bit(tiny_run, rows, store: Store, stop_after: float, task_weighting: str):
    config = FOUR_EPOCHS.model_copy(update={"task_weighting": task_weighting})
    uninterrupted, _ = fit_here(*rows, tiny_run.recipe.labels, config)
    with pytest.raises(StoppedError):
        fit_here(*rows, tiny_run.recipe.labels, config, stop_at(stop_after), store)
    resumed, report = fit_here(*rows, tiny_run.recipe.labels, config, checkpoints=store)
    assert_equal_weights(uninterrupted, resumed)
    assert report.resumed_at >= 32 * stop_after - 2 * CONFIG.checkpoint_every_steps
    assert report.resumed_at + report.steps == 32
    assert store.folders("checkpoints") == []


def test_a_resumed_training_sees_no_row_twice_and_none_less(tiny_run, rows, store: Store, monkeypatch):
    """The ids of all batches that count, before and after the stop, are those of the uninterrupted training in order."""
    seen: list[list[int]] = []

    class Spy(ShuffledRows):
        def batches(self, *told):
            for batch in super().batches(*told):
                seen.append(batch.ids[:, 0].tolist())
                yield batch

    monkeypatch.setattr("tidewheel.training.train.ShuffledRows", Spy)
    fit_here(*rows, tiny_run.recipe.labels, FOUR_EPOCHS)
    want, seen[:] = list(seen), []
    with pytest.raises(StoppedError):
        fit_here(*rows, tiny_run.recipe.labels, FOUR_EPOCHS, stop_at(0.5), store)
    before, seen[:] = list(seen), []
    _, report = fit_here(*rows, tiny_run.recipe.labels, FOUR_EPOCHS, checkpoints=store)
    assert before[: report.resumed_at] + seen == want


def test_bfloat16_products_come_to_almost_the_same_ranker(tiny_run, rows):
    half = CONFIG.model_copy(update={"optimizer": CONFIG.optimizer.model_copy(update={"precision": "bfloat16"})})
    one, _ = fit_here(*rows, tiny_run.recipe.labels, CONFIG)
    other, _ = fit_here(*rows, tiny_run.recipe.labels, half)
    batch = next(rows[0].in_order(2000))
    with torch.no_grad():
        logits = [torch.sigmoid(ranker(batch.ids, batch.numbers)) for ranker in (one, other)]
    distance = (logits[0] - logits[1]).abs()
    assert 0 < distance.max() < 0.05
    assert all(value.dtype == torch.float32 for value in other.parameters())


def test_a_checkpoint_of_other_work_is_not_resumed(rows, store: Store):
    named = dict(Ranker(rows[1]).named_parameters())
    optimizer = Optimizer(named.items(), CONFIG.optimizer, torch.ones(3))
    optimizer.steps = 3
    saved = Checkpoints(store, "this", 1)
    saved.save(named, optimizer)
    saved.settle()
    assert Checkpoints(store, "other", 1).resume(named, optimizer) == 0
    assert Checkpoints(store, "this", 1).resume(named, optimizer) == 3


def test_only_the_newest_checkpoint_is_kept(rows, store: Store):
    named = dict(Ranker(rows[1]).named_parameters())
    optimizer = Optimizer(named.items(), CONFIG.optimizer, torch.ones(3))
    saved = Checkpoints(store, "work", 1)
    for optimizer.steps in (1, 2, 3):
        saved.save(named, optimizer)
    saved.settle()
    assert len(store.folders("checkpoints")) == 1
    assert saved.newest_step() == 3


def test_a_checkpoint_that_is_replaced_while_it_is_looked_for_is_not_missed(rows, store: Store, monkeypatch):
    """As by a worker that has not noticed yet that its node is gone."""
    named = dict(Ranker(rows[1]).named_parameters())
    optimizer = Optimizer(named.items(), CONFIG.optimizer, torch.ones(3))

    def save(step: int) -> None:
        optimizer.steps = step
        other = Checkpoints(store, "work", 1)
        other.save(named, optimizer)
        other.settle()

    save(20)
    # Before which call, and at which step: of the store, of what hashes a file, of what reads it.
    replacing = {"manifest": 40, "fetch": 60, "sha256_of": 80, "load_file": 100}

    def replaced_before(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*told, **how):
            if step := replacing.pop(name, None):
                save(step)
            return real(*told, **how)

        monkeypatch.setattr(owner, name, call)

    replaced_before(store, "manifest")
    replaced_before(store, "fetch")
    replaced_before(local, "sha256_of")
    replaced_before(safetensors.torch, "load_file")
    saved = Checkpoints(store, "work", 1)
    assert saved.resume(named, optimizer) == 100
    assert saved.notes == []


def test_checkpoints_that_nobody_came_back_for_go_with_those_of_finished_work(rows, store: Store):
    named = dict(Ranker(rows[1]).named_parameters())
    optimizer = Optimizer(named.items(), CONFIG.optimizer, torch.ones(3))
    optimizer.steps = 1
    day = datetime(2026, 1, 1, tzinfo=UTC)
    for work, age in (("done", 0), ("given up", 20), ("waiting", 10)):
        saved = Checkpoints(store, work, 1, now=lambda age=age: day - timedelta(days=age))
        saved.save(named, optimizer)
        saved.settle()
    Checkpoints(store, "done", 1, now=lambda: day).clear()
    assert [Checkpoints(store, work, 1).newest_step() for work in ("done", "given up", "waiting")] == [0, 0, 1]


def test_a_damaged_checkpoint_is_removed_and_said_and_training_starts_again(tiny_run, rows, store: Store):
    uninterrupted, _ = fit_here(*rows, tiny_run.recipe.labels, FOUR_EPOCHS)
    with pytest.raises(StoppedError):
        fit_here(*rows, tiny_run.recipe.labels, FOUR_EPOCHS, stop_at(0.5), store)
    (path,) = Path(store.url).glob("checkpoints/*/checkpoint.safetensors")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    resumed, report = fit_here(*rows, tiny_run.recipe.labels, FOUR_EPOCHS, checkpoints=store)
    assert_equal_weights(uninterrupted, resumed)
    assert report.resumed_at == 0
    assert "is damaged and was removed" in report.notes[0]


def test_a_learning_rate_that_explodes_ends_training_with_the_step_and_keeps_the_checkpoint(tiny_run, rows, store: Store):
    wild = FOUR_EPOCHS.model_copy(update={"optimizer": FOUR_EPOCHS.optimizer.model_copy(update={"learning_rate": 1e20})})
    with pytest.raises(ConfigError, match=r"the loss is (nan|inf) at step \d+, after .*lower learning_rate \(1e\+20\)"):
        fit_here(*rows, tiny_run.recipe.labels, wild, checkpoints=store)
    for digest in store.folders("checkpoints"):
        tensors = load_file(str(store.fetch("checkpoints", digest) / "checkpoint.safetensors"))
        assert all(torch.isfinite(value).all() for value in tensors.values())


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint_and_names_its_step(tiny_run, rows, store: Store, monkeypatch):
    real = multi_task_loss
    steps = iter(range(1, 1000))
    monkeypatch.setattr(loop, "multi_task_loss", lambda *told: real(*told) * (float("nan") if next(steps) == 17 else 1.0))
    with pytest.raises(ConfigError, match=r"the loss is nan at step 17, after \d\.\d+; the checkpoint of step 15 is kept"):
        fit_here(*rows, tiny_run.recipe.labels, FOUR_EPOCHS, checkpoints=store)
    assert len(store.folders("checkpoints")) == 1


OTHER_BLOCKS = {"cross": "parallel", "mixture": "ple", "context": "epnet"}


@pytest.mark.parametrize(("blocks", "task_weighting"), [({}, "fixed"), (OTHER_BLOCKS, "uncertainty")])
def test_the_ranker_recovers_what_the_rows_were_made_from(quickstart, make_rows, tmp_path: Path, blocks, task_weighting):
    """Labels are drawn from a known margin; on new rows the ranker comes close to the ranking by that margin itself."""
    folders = {"train": tmp_path / "train", "new": tmp_path / "new"}
    for seed, (name, count) in enumerate((("train", 12_000), ("new", 4000))):
        folders[name].mkdir()
        pq.write_table(make_rows(quickstart, count, seed), folders[name] / "part-0.parquet")
    optimizer = OptimizerConfig(epochs=4, batch_size=512, learning_rate=0.01)
    network = CONFIG.network.model_copy(update=blocks)
    config = CONFIG.model_copy(update={"optimizer": optimizer, "network": network, "task_weighting": task_weighting})
    (tmp_path / "out").mkdir()
    manifest = train(folders["train"], quickstart.features, quickstart.labels, config, None, tmp_path / "out")

    table = pq.read_table(folders["new"])
    columns = columns_of(table, quickstart.features)
    click = labels_of(table, ("click",))[:, 0]
    truth = 1.2 * columns["user_tenure_days"] + np.where(columns["user_id"] % 2 == 0, 1.0, -1.0)
    found = GraphScorer(tmp_path / "out", manifest).score(columns)["click"]
    assert roc_auc_score(click, found) > roc_auc_score(click, truth) - 0.02


def test_a_teacher_gives_its_uncalibrated_probabilities_and_leaves_labels_that_it_does_not_know(
    tiny_run, tiny_bundle, tmp_path
):
    recipe = tiny_run.recipe
    table = pq.read_table(tiny_run.train_dir)
    teacher = Teacher.of_bundle(tiny_bundle, ("click", "purchase"), is_inline=False)
    soft = teacher.score(teacher.encoders.encode(columns_of(table, teacher.features)))
    logits = Scorer(tiny_bundle).logits(columns_of(table, recipe.features))
    np.testing.assert_allclose(soft[:, 0], sigmoid(logits["click"]), atol=1e-6)
    assert np.isnan(soft[:, 1]).all()


def test_scores_of_a_teacher_are_the_same_inline_and_precomputed(tiny_run, tiny_bundle, tmp_path: Path):
    recipe, soft = tiny_run.recipe, {}
    for is_inline in (True, False):
        folder = tmp_path / str(is_inline)
        encoders = fitted_encoders(tiny_run.train_dir, recipe.features, recipe.label_names, folder)
        teacher = Teacher.of_bundle(tiny_bundle, recipe.label_names, is_inline)
        rows = encoded_rows(tiny_run.train_dir, encoders, recipe.label_names, folder, teacher)
        soft[is_inline] = torch.cat([batch.soft_labels for batch in rows.in_order(300)])
    torch.testing.assert_close(soft[True], soft[False], atol=1e-6, rtol=1e-6)
    assert soft[True].shape == (2000, 3)


def test_a_ranker_trained_with_a_teacher_names_it_and_comes_closer_to_it(tiny_run, tiny_bundle, tmp_path: Path):
    recipe = tiny_run.recipe
    columns = columns_of(pq.read_table(tiny_run.calibration_dir), recipe.features)
    taught_by = sigmoid(Scorer(tiny_bundle).logits(columns)["click"])

    def distance(weight: float) -> float:
        out = tmp_path / f"weight-{weight}"
        out.mkdir()
        teacher = CONFIG.teacher.model_copy(update={"weight": weight, "final_weight": weight})
        longer = CONFIG.optimizer.model_copy(update={"epochs": 8})
        config = CONFIG.model_copy(update={"teacher": teacher, "optimizer": longer})
        manifest = train(tiny_run.train_dir, recipe.features, recipe.labels, config, tiny_bundle, out)
        assert (manifest.teacher, manifest.generation) == (tiny_bundle.digest, 1)
        return float(np.abs(GraphScorer(out, manifest).score(columns)["click"] - taught_by).mean())

    assert distance(20.0) < distance(0.0)


def test_training_moves_the_learned_weights(tiny_run, rows):
    config = CONFIG.model_copy(update={"task_weighting": "uncertainty"})
    start = new_ranker(rows[0].rates, rows[1], config.seed, config.task_weighting).log_variances
    assert (fit_here(*rows, tiny_run.recipe.labels, config)[0].log_variances - start).abs().max() > 0.01


@pytest.mark.parametrize("log_variances", [None, [0.0, 0.0, 0.0], [1.5, -2.0, 0.3]])
def test_the_weights_of_single_ids_learn_as_fast_whatever_a_label_counts(tiny_run, rows, tmp_path: Path, log_variances):
    """One step with a teacher, from equal weights."""
    names, encoders = tiny_run.recipe.label_names, Encoders.read(rows[0].folder / "encoders.json")
    teacher = Teacher.of_bundle(tiny_run.bundle, names, is_inline=False)
    soft = encoded_rows(tiny_run.train_dir, encoders, names, tmp_path, teacher)

    def after_a_step(log_variances, task_weights) -> np.ndarray:
        ranker = new_ranker(soft.rates, rows[1], seed=0).eval()
        ranker.log_variances = None if log_variances is None else torch.nn.Parameter(torch.tensor(log_variances))
        objective = loop.Objective(torch.tensor(task_weights), 1.0, lambda share: 0.5, ranker.log_variances)
        loop.fit(
            ranker, ShuffledRows(soft), OptimizerConfig(epochs=1, batch_size=len(soft), weight_decay=0.0), objective, seed=0
        )
        return ranker.wide_table.detach().numpy()

    want = after_a_step(None, [1.0, 1.0, 1.0])
    assert np.abs(want).max() > 0.01
    np.testing.assert_allclose(after_a_step(log_variances, [1.0, 0.5, 2.0]), want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "want"),
    [("linear", [0.8, 0.6, 0.4, 0.2, 0.0]), ("cosine", [0.8, 0.68284, 0.4, 0.11716, 0.0]), ("constant", [0.8] * 5)],
)
def test_the_teachers_weight_follows_its_schedule_label_by_label(quickstart, schedule, want):
    final = {} if schedule == "constant" else {"final_weight": 0.0}
    teacher = DistillationConfig(weight=0.8, schedule=schedule, by_label={"like": 0.5}, **final)
    soft_weight = objective_of(quickstart.labels, TrainConfig(teacher=teacher), "cpu").soft_weight
    got = torch.stack([soft_weight(share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)])  # (5, T)
    scales = torch.tensor([0.5 if label.name == "like" else 1.0 for label in quickstart.labels])
    torch.testing.assert_close(got, torch.tensor(want).unsqueeze(1) * scales, atol=1e-5, rtol=0)


def test_a_constant_weight_that_is_to_end_elsewhere_is_refused():
    with pytest.raises(ValueError, match=r"schedule is constant; final_weight 0.1 differs from weight 0.3"):
        DistillationConfig(schedule="constant", weight=0.3, final_weight=0.1)
    with pytest.raises(ValueError, match="schedule is constant; expected a weight beside it"):
        DistillationConfig(schedule="constant")


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(tiny_run, tmp_path):
    recipe, missing = tiny_run.recipe, f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=rf"train.device is {missing}, and this machine has \d+ GPUs .* set it to cpu"):
        train(tmp_path, recipe.features, recipe.labels, TrainConfig(device=missing), None, tmp_path)
    with pytest.raises(ValueError, match="device"):
        TrainConfig(device="gpu")


def test_labels_come_first_and_the_teacher_last_by_default():
    assert [DistillationConfig().at(share) for share in (0.0, 0.5, 1.0)] == [0.0, 0.4, 0.8]


def test_training_writes_what_its_manifest_names(tiny_run):
    names = {path.name for path in tiny_run.ranker_folder.iterdir()}
    manifest = tiny_run.ranker
    assert {manifest.weights, manifest.network, manifest.encoders, manifest.graph} == names
    assert Encoders.read(tiny_run.ranker_folder / manifest.encoders).features == tiny_run.recipe.features
