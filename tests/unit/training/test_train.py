"""Training: it learns what is there, stops and goes on bit by bit, and listens to a teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tidewheel.contracts.recipe import DistillationConfig, NetworkConfig, OptimizerConfig, TrainConfig
from tidewheel.errors import ConfigError, ContractError
from tidewheel.ranker import GraphScorer, Scorer, columns_of
from tidewheel.ranker.encoding import Encoders, fit
from tidewheel.ranker.loss import multi_task_loss
from tidewheel.ranker.model import Network, Ranker
from tidewheel.ranker.scorer import sigmoid
from tidewheel.training import loop
from tidewheel.training.checkpoint import Checkpoints
from tidewheel.training.loader import Rows, labels_of, read_table, rows_of, weights_of
from tidewheel.training.optimizer import Optimizer
from tidewheel.training.train import fit_here, new_ranker, objective_of, soft_labels_of, train

CONFIG = TrainConfig(
    network=NetworkConfig(embedding_dim=4, cross_layers=1, cross_rank=4, experts=2, hidden=(8,), dropout=0.2),
    optimizer=OptimizerConfig(epochs=2, batch_size=256, learning_rate=0.01),
    checkpoint_every_steps=3,
)


@pytest.fixture(scope="module")
def rows(tiny_run) -> tuple[Rows, Network]:
    recipe = tiny_run.recipe
    table = read_table(tiny_run.train_dir, recipe.features, recipe.label_names)
    encoders = fit(columns_of(table, recipe.features), weights_of(table, tiny_run.train_dir), recipe.features)
    return (
        rows_of(table, encoders, recipe.label_names, tiny_run.train_dir),
        Network.of(CONFIG.network, encoders, recipe.label_names),
    )


def assert_equal_weights(one: Ranker, other: Ranker) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_equal_seeds_give_equal_weights_and_leave_the_global_random_state_alone(tiny_run, rows):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = fit_here(*rows, tiny_run.recipe.labels, CONFIG)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert_equal_weights(one, fit_here(*rows, tiny_run.recipe.labels, CONFIG))


class StoppedError(Exception):
    """Stands for a process that is killed."""


@pytest.mark.parametrize(
    ("stop_after", "task_weighting"),  # in the second, third and fourth epoch
    [(0.3, "fixed"), (0.6, "fixed"), (0.9, "fixed"), (0.6, "uncertainty")],
)
def test_training_that_was_stopped_goes_on_bit_by_bit(tiny_run, rows, tmp_path: Path, stop_after: float, task_weighting: str):
    optimizer = CONFIG.optimizer.model_copy(update={"epochs": 4})
    config = CONFIG.model_copy(update={"optimizer": optimizer, "task_weighting": task_weighting})
    uninterrupted = fit_here(*rows, tiny_run.recipe.labels, config)

    def killed(share: float, words: str) -> None:
        if share >= stop_after:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit_here(*rows, tiny_run.recipe.labels, config, killed, tmp_path / "work")
    assert list((tmp_path / "work").glob("*.safetensors"))
    seen: list[float] = []
    resumed = fit_here(*rows, tiny_run.recipe.labels, config, lambda share, words: seen.append(share), tmp_path / "work")
    assert_equal_weights(uninterrupted, resumed)
    assert len(seen) < 32 // 10 + 1  # not all of the 32 steps were done again
    assert not (tmp_path / "work").exists()


def test_a_checkpoint_of_other_work_is_not_resumed(tiny_run, rows, tmp_path: Path):
    ranker = Ranker(rows[1])
    objective = objective_of(tiny_run.recipe.labels, CONFIG, "cpu")
    optimizer = Optimizer(ranker.named_parameters(), CONFIG.optimizer, objective.task_weights)
    optimizer.steps = 3
    Checkpoints(tmp_path, 1, "this").save(ranker, optimizer)
    assert Checkpoints(tmp_path, 1, "other").resume(ranker, optimizer) == 0
    assert Checkpoints(tmp_path, 1, "this").resume(ranker, optimizer) == 3


def test_a_damaged_checkpoint_is_named(tiny_run, rows, tmp_path: Path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half a file")
    with pytest.raises(ContractError, match=r"checkpoint\.safetensors: is damaged"):
        fit_here(*rows, tiny_run.recipe.labels, CONFIG, checkpoints=tmp_path)


def test_a_learning_rate_that_explodes_says_so(tiny_run, rows):
    wild = CONFIG.model_copy(update={"optimizer": CONFIG.optimizer.model_copy(update={"learning_rate": 1e20})})
    with pytest.raises(ConfigError, match="lower learning_rate"):
        fit_here(*rows, tiny_run.recipe.labels, wild)


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

    table = read_table(folders["new"], quickstart.features, quickstart.label_names)
    columns = columns_of(table, quickstart.features)
    click = labels_of(table, ("click",))[:, 0]
    truth = 1.2 * columns["user_tenure_days"] + np.where(columns["user_id"] % 2 == 0, 1.0, -1.0)
    found = GraphScorer(tmp_path / "out", manifest).score(columns)["click"]
    assert roc_auc_score(click, found) > roc_auc_score(click, truth) - 0.02


def test_a_teacher_gives_its_uncalibrated_probabilities(tiny_run, tiny_bundle):
    recipe = tiny_run.recipe
    table = read_table(tiny_run.train_dir, recipe.features, recipe.label_names)
    soft = soft_labels_of(tiny_bundle, table, ("click", "like"))
    logits = Scorer(tiny_bundle).logits(columns_of(table, recipe.features))
    np.testing.assert_allclose(soft[:, 0], sigmoid(logits["click"]), atol=1e-6)
    np.testing.assert_allclose(soft[:, 1], sigmoid(logits["like"]), atol=1e-6)


def test_a_ranker_trained_with_a_teacher_names_it_and_comes_closer_to_it(tiny_run, tiny_bundle, tmp_path: Path):
    recipe = tiny_run.recipe
    columns = columns_of(read_table(tiny_run.calibration_dir, recipe.features, recipe.label_names), recipe.features)
    taught_by = sigmoid(Scorer(tiny_bundle).logits(columns)["click"])

    def distance(weight: float) -> float:
        out = tmp_path / f"weight-{weight}"
        out.mkdir()
        teacher = CONFIG.teacher.model_copy(update={"weight": weight, "final_weight": weight})
        config = CONFIG.model_copy(update={"teacher": teacher})
        manifest = train(tiny_run.train_dir, recipe.features, recipe.labels, config, tiny_bundle, out)
        assert (manifest.teacher, manifest.generation) == (tiny_bundle.digest, 1)
        return float(np.abs(GraphScorer(out, manifest).score(columns)["click"] - taught_by).mean())

    assert distance(20.0) < distance(0.0)


def test_learned_weights_settle_where_every_label_counts_alike():
    """Logits that never change, so that each label's loss L is known: exp(-s) ends at 1 / (2 L)."""
    logits, labels = torch.tensor([[0.0, -2.0], [0.0, -2.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    want = np.array([1 / (2 * np.log(2)), 1 / (2 * np.log(1 + np.exp(-2.0)))])
    s = torch.nn.Parameter(torch.zeros(2))
    optimizer = Optimizer([("log_variances", s)], OptimizerConfig(learning_rate=0.01), torch.ones(2))
    for _ in range(600):
        multi_task_loss(logits, labels, torch.ones(2), torch.tensor([1.0, 0.2]), log_variances=s).backward()
        optimizer.step(1.0)
    np.testing.assert_allclose(torch.exp(-s).detach().numpy(), want, rtol=1e-3)


def test_training_moves_the_learned_weights(tiny_run, rows):
    config = CONFIG.model_copy(update={"task_weighting": "uncertainty"})
    start = new_ranker(*rows, config.seed, config.task_weighting).log_variances
    assert (fit_here(*rows, tiny_run.recipe.labels, config).log_variances - start).abs().min() > 0.001


@pytest.mark.parametrize("log_variances", [None, [0.0, 0.0, 0.0], [1.5, -2.0, 0.3]])
def test_the_weights_of_single_ids_learn_as_fast_whatever_a_label_counts(rows, log_variances):
    """One step with a teacher, from equal weights."""
    soft = rows[0].with_soft_labels(np.full(rows[0].labels.shape, 0.4))

    def after_a_step(log_variances, task_weights) -> np.ndarray:
        ranker = new_ranker(*rows, seed=0).eval()
        ranker.log_variances = None if log_variances is None else torch.nn.Parameter(torch.tensor(log_variances))
        objective = loop.Objective(torch.tensor(task_weights), 1.0, lambda share: 0.5, ranker.log_variances)
        loop.fit(ranker, soft, OptimizerConfig(epochs=1, batch_size=len(soft), weight_decay=0.0), objective, seed=0)
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


def test_the_network_is_updated_as_by_torchs_adamw():
    torch.manual_seed(0)
    value = torch.nn.Parameter(torch.randn(4, 3))
    peer = torch.nn.Parameter(value.detach().clone())
    config = OptimizerConfig(learning_rate=0.01, weight_decay=0.1)
    ours = Optimizer([("heads", value)], config, torch.ones(1))
    theirs = torch.optim.AdamW([peer], lr=0.01, weight_decay=0.1)
    for seed in range(5):
        gradient = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        value.grad, peer.grad = gradient.clone(), gradient.clone()
        ours.step(1.0)
        theirs.step()
    torch.testing.assert_close(value.detach(), peer.detach(), atol=1e-7, rtol=1e-6)


def test_the_weights_of_single_ids_are_updated_as_by_torchs_adagrad():
    value = torch.nn.Parameter(torch.zeros(5, 2))
    peer = torch.nn.Parameter(torch.zeros(5, 2))
    ours = Optimizer([("wide_table", value)], OptimizerConfig(batch_size=1, wide_rate=0.1), torch.ones(2))
    theirs = torch.optim.Adagrad([peer], lr=0.1, initial_accumulator_value=1.0, eps=0.0)
    for seed in range(5):
        gradient = torch.randn(5, 2, generator=torch.Generator().manual_seed(seed))
        value.grad, peer.grad = gradient.clone(), gradient.clone()
        ours.step(1.0)
        theirs.step()
    torch.testing.assert_close(value.detach(), peer.detach())


def test_the_learning_rate_rises_and_falls_to_almost_nothing():
    rates = [loop.schedule(step, 100) for step in range(100)]
    assert max(rates) == rates[4] == 1.0
    assert rates[0] == pytest.approx(0.2)
    assert rates[-1] == pytest.approx(1 / 95)


def test_training_writes_what_its_manifest_names(tiny_run):
    names = {path.name for path in tiny_run.ranker_folder.iterdir()}
    manifest = tiny_run.ranker
    assert {manifest.weights, manifest.network, manifest.encoders, manifest.graph} == names
    assert Encoders.read(tiny_run.ranker_folder / manifest.encoders).features == tiny_run.recipe.features


@pytest.mark.slow
def test_two_ray_workers_train_what_one_process_trains(tiny_run, rows, tmp_path: Path):
    pytest.importorskip("ray")
    from tidewheel.training.distributed import fit_distributed

    network = rows[1].model_copy(update={"config": CONFIG.network.model_copy(update={"dropout": 0.0})})
    config = CONFIG.model_copy(
        update={"engine": "ray", "num_workers": 2, "network": network.config, "task_weighting": "uncertainty"}
    )
    alone = fit_here(rows[0], network, tiny_run.recipe.labels, config)
    (tmp_path / "out").mkdir()
    together = fit_distributed(
        rows[0], network, tiny_run.recipe.labels, config, tmp_path / "out", lambda share, words: None, tmp_path / "work"
    )
    start = new_ranker(rows[0], network, config.seed)
    for name, value in together.state_dict().items():
        moved = (alone.state_dict()[name] - start.state_dict()[name]).abs().max()
        assert (value - alone.state_dict()[name]).abs().max() <= 0.02 * moved + 1e-6, name
