"""The network, its loss and its ONNX graph."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.unit.ranker.networks import trained_like
from tidewheel.contracts.network import NetworkConfig
from tidewheel.errors import ContractError
from tidewheel.ranker.calibration import Calibrators, Isotonic, Platt
from tidewheel.ranker.export import export_graph
from tidewheel.ranker.histogram import Histogram, Line
from tidewheel.ranker.loss import best_log_variances, multi_task_loss
from tidewheel.ranker.model import Network, Ranker, load_ranker, save_ranker

SIZES, LABELS = (5, 7), ("click", "like")
NETWORKS = {
    "ranker": NetworkConfig(embedding_dim=3, cross_layers=2, cross_rank=4, experts=3, hidden=(8, 6)),
    "student": NetworkConfig(embedding_dim=2, cross_layers=0, experts=1, hidden=(4,), dropout=0.0),
    "ple of one level": NetworkConfig(embedding_dim=2, experts=1, mixture="ple", task_experts=2, levels=1, hidden=(4,)),
}
for choice in itertools.product(("stacked", "parallel"), ("mmoe", "ple"), ("none", "epnet")):
    blocks = dict(zip(("cross", "mixture", "context"), choice, strict=True))
    NETWORKS[" ".join(choice)] = NETWORKS["ranker"].model_copy(update=blocks)


def network(name: str = "ranker", num_numbers: int = 4) -> Network:
    """The second feature is of the context, and so is the first number if there is one."""
    context = {"context_ids": (1,), "context_numbers": (0,) if num_numbers else ()}
    return Network(config=NETWORKS[name], sizes=SIZES, num_numbers=num_numbers, labels=LABELS, **context)


def inputs(rows: int, num_numbers: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.stack([torch.randint(0, size, (rows,), generator=generator) for size in SIZES], dim=1)
    return ids, torch.randn(rows, num_numbers, generator=generator)


def run(path: Path, ids: torch.Tensor, numbers: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.stack(session.run(list(LABELS), {"ids": ids.numpy(), "numbers": numbers.numpy()}), axis=1)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("num_numbers", [4, 0])
@pytest.mark.parametrize("rows", [1, 33])
def test_the_exported_graph_computes_what_torch_computes(name: str, num_numbers: int, rows: int, tmp_path: Path):
    ranker = trained_like(network(name, num_numbers))
    ids, numbers = inputs(rows, num_numbers)
    export_graph(ranker, tmp_path / "graph.onnx")
    with torch.no_grad():
        expected = ranker(ids, numbers).numpy()
    np.testing.assert_allclose(run(tmp_path / "graph.onnx", ids, numbers), expected, atol=1e-6, rtol=1e-5)


def test_the_calibrated_graph_applies_each_labels_calibrator(tmp_path: Path):
    ranker = trained_like(network())
    ids, numbers = inputs(200)
    calibrators = Calibrators(
        by_label={
            "click": Platt(scale=0.7, shift=-0.4),
            "like": Isotonic(logits=(-1.0, 0.0, 0.001, 2.0), probabilities=(0.1, 0.2, 0.5, 0.9)),
        }
    )
    export_graph(ranker, tmp_path / "graph.onnx", calibrators)
    with torch.no_grad():
        logits = ranker(ids, numbers).double().numpy()
    found = run(tmp_path / "graph.onnx", ids, numbers)
    np.testing.assert_allclose(found[:, 0], 1 / (1 + np.exp(-(0.7 * logits[:, 0] - 0.4))), atol=1e-6)
    # Within 1e-5 only: between 0 and 0.001 the line is so steep that the last bit of the logit shows.
    np.testing.assert_allclose(found[:, 1], np.interp(logits[:, 1], (-1, 0, 0.001, 2), (0.1, 0.2, 0.5, 0.9)), atol=5e-4)
    assert np.abs(found[:, 1] - np.interp(logits[:, 1], (-1, 0, 0.001, 2), (0.1, 0.2, 0.5, 0.9))).mean() < 1e-5


@pytest.mark.parametrize(
    "by_id", [{}, {1: Line(inputs=(-1.0, 0.5), outputs=(-0.7, 0.9)), 3: Line(inputs=(0.0,), outputs=(-2.0,))}]
)
def test_the_calibrated_graph_gives_each_slice_its_own_map(tmp_path: Path, by_id: dict[int, Line]):
    ranker = trained_like(network())
    ids, numbers = inputs(400)
    overall = Line(inputs=(-2.0, 0.0, 0.3, 1.0), outputs=(-1.5, -0.2, 0.4, 0.6))
    histogram = Histogram(scale=0.8, shift=0.1, overall=overall, slice="surface", column=1, by_id=by_id)
    export_graph(ranker, tmp_path / "graph.onnx", Calibrators(by_label={"click": histogram, "like": Platt()}))
    with torch.no_grad():
        logits = ranker(ids, numbers).double().numpy()[:, 0]
    slices = ids.numpy()[:, 1]
    assert {1, 3} < set(slices.tolist())
    wanted = interpolated(0.8 * logits + 0.1, overall)
    for value, line in by_id.items():
        wanted = np.where(slices == value, interpolated(wanted, line), wanted)
    found = run(tmp_path / "graph.onnx", ids, numbers)[:, 0]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-wanted)), atol=1e-6)
    np.testing.assert_allclose(histogram.apply(logits, slices), found, atol=1e-6)


def test_calibrators_that_were_read_back_give_the_same_graph(tmp_path: Path):
    by_id = {value: Line(inputs=(0.0,), outputs=(0.1 * value,)) for value in (2, 10, 9)}  # JSON has "10" before "2"
    histogram = Histogram(scale=1.0, shift=0.0, overall=Line(), slice="surface", column=1, by_id=by_id)
    calibrators = Calibrators(by_label={"click": histogram, "like": Platt()})
    ranker = trained_like(network())
    export_graph(ranker, tmp_path / "one.onnx", calibrators)
    export_graph(ranker, tmp_path / "two.onnx", Calibrators.read(calibrators.write(tmp_path / "calibrators.json")))
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def interpolated(values: np.ndarray, line: Line) -> np.ndarray:
    """The line with slope 1 beyond its ends, by adding far points to what NumPy interpolates."""
    inputs = [line.inputs[0] - 100, *line.inputs, line.inputs[-1] + 100]
    return np.interp(values, inputs, [line.outputs[0] - 100, *line.outputs, line.outputs[-1] + 100])


def test_exporting_twice_gives_equal_bytes(tmp_path: Path):
    ranker = trained_like(network())
    export_graph(ranker, tmp_path / "one.onnx")
    export_graph(ranker, tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


@pytest.mark.parametrize("name", ["ranker", "parallel ple epnet"])
def test_an_untrained_network_predicts_the_rates_that_it_starts_at(name: str):
    ranker = Ranker(network(name)).eval()
    for name, value in ranker.named_parameters():
        if name == "heads.heads":
            value.data.zero_()
    ranker.start_at(torch.tensor([0.25, 0.01]))
    with torch.no_grad():
        found = torch.sigmoid(ranker(*inputs(3)))
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.01]]).expand(3, 2))


def test_a_saved_ranker_loads_with_equal_outputs(tmp_path: Path):
    ranker = trained_like(network())
    save_ranker(ranker, tmp_path / "weights.safetensors", tmp_path / "network.json")
    again = load_ranker(tmp_path / "weights.safetensors", tmp_path / "network.json").eval()
    with torch.no_grad():
        assert torch.equal(ranker(*inputs(9)), again(*inputs(9)))


def test_log_variances_are_no_part_of_the_saved_network(tmp_path: Path):
    ranker = trained_like(network())
    save_ranker(ranker, tmp_path / "without.safetensors", tmp_path / "network.json")
    ranker.learn_task_weights(torch.tensor([0.3, 0.1]))
    assert "log_variances" in ranker.state_dict()
    save_ranker(ranker, tmp_path / "with.safetensors", tmp_path / "network.json")
    assert (tmp_path / "with.safetensors").read_bytes() == (tmp_path / "without.safetensors").read_bytes()


def test_the_default_network_has_the_weights_that_it_always_had():
    ranker = Ranker(Network(config=NetworkConfig(), sizes=SIZES, num_numbers=4, labels=LABELS))  # X = 20
    cross = {"down": (20, 20), "up": (20, 20), "bias": (20,)}
    assert {name: tuple(value.shape) for name, value in ranker.state_dict().items()} == {
        "embeddings.table": (12, 8),
        **{f"crosses.{at}.{part}": shape for at in (0, 1) for part, shape in cross.items()},
        "experts.weights.0": (3, 20, 128),
        "experts.weights.1": (3, 128, 64),
        "experts.biases.0": (3, 1, 128),
        "experts.biases.1": (3, 1, 64),
        "heads.gates": (20, 6),
        "heads.heads": (2, 64),
        "heads.bias": (2,),
        "wide": (20, 2),
        "wide_table": (12, 2),
    }


def numpy_crosses(ranker: Ranker, x0: np.ndarray) -> np.ndarray:
    x = x0
    for cross in ranker.crosses:
        down, up, bias = (getattr(cross, part).detach().numpy() for part in ("down", "up", "bias"))
        x = x0 * (x @ down @ up + bias) + x
    return x


def test_parallel_towers_read_the_same_input_and_the_heads_read_both():
    """Against NumPy; one expert, so that its gate is 1."""
    config = NetworkConfig(embedding_dim=2, cross="parallel", cross_layers=2, cross_rank=3, experts=1, hidden=(5,), dropout=0.0)
    ranker = trained_like(Network(config=config, sizes=SIZES, num_numbers=4, labels=LABELS))
    ids, numbers = inputs(6)
    w = {name: value.detach().numpy() for name, value in ranker.named_parameters()}
    rows = ids.numpy() + np.array([0, 5])
    x0 = np.concatenate([w["embeddings.table"][rows].reshape(6, 4), numbers.numpy()], axis=1)
    deep = np.maximum(x0 @ w["experts.weights.0"][0] + w["experts.biases.0"][0], 0)
    towers = np.concatenate([deep, numpy_crosses(ranker, x0)], axis=1)
    head = np.concatenate([w["heads.heads"].T, w["cross_heads"]], axis=0)  # one linear head a label on both towers
    expected = towers @ head + w["heads.bias"] + x0 @ w["wide"] + w["wide_table"][rows].sum(axis=1)
    with torch.no_grad():
        np.testing.assert_allclose(ranker(ids, numbers).numpy(), expected, atol=1e-5)


def test_the_context_gates_what_cross_layers_and_experts_read_but_not_the_linear_path():
    """A gate that is shut leaves only what the context says, plus the linear path as it is."""
    ranker = trained_like(network("stacked mmoe epnet"))
    ranker.context.up.data.zero_()
    ranker.context.up_bias.data.fill_(-200.0)
    ids, numbers = inputs(9)
    others = numbers.clone()
    others[:, 1:] += 1.0
    with torch.no_grad():
        moved = ranker(ids, others) - ranker(ids, numbers)
        linear = (others - numbers) @ ranker.wide[6:]  # two features of 3 columns come before the numbers
    torch.testing.assert_close(moved, linear, atol=1e-5, rtol=0)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    save_ranker(trained_like(network()), tmp_path / "weights.safetensors", tmp_path / "network.json")
    network("student").write(tmp_path / "network.json")
    with pytest.raises(ContractError, match=r"weights\.safetensors: does not fit network\.json"):
        load_ranker(tmp_path / "weights.safetensors", tmp_path / "network.json")


def test_truncated_weights_are_refused(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    save_ranker(trained_like(network()), path, tmp_path / "network.json")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ContractError, match=r"weights\.safetensors"):
        load_ranker(path, tmp_path / "network.json")


def cross_entropy(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-logits))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def test_the_loss_weighs_rows_labels_and_teacher():
    random = np.random.default_rng(0)
    logits, soft = random.normal(size=(6, 2)), random.random((6, 2))
    labels, weights, tasks = (random.random((6, 2)) < 0.5) * 1.0, random.random(6), np.array([1.0, 0.2])
    hard_part = (weights[:, None] * cross_entropy(logits, labels)).mean(axis=0) @ tasks
    soft_part = (weights[:, None] * cross_entropy(logits, soft)).mean(axis=0) @ tasks
    arguments = [torch.tensor(x) for x in (logits, labels, weights, tasks)]
    assert multi_task_loss(*arguments).item() == pytest.approx(hard_part)
    with_teacher = multi_task_loss(*arguments, torch.tensor(soft), hard_weight=0.9, soft_weight=0.3)
    assert with_teacher.item() == pytest.approx(0.9 * hard_part + 0.3 * soft_part)
    by_label = multi_task_loss(*arguments, torch.tensor(soft), soft_weight=torch.tensor([0.0, 3.0], dtype=torch.float64))
    second_alone = (weights * cross_entropy(logits, soft)[:, 1]).mean() * tasks[1]
    assert by_label.item() == pytest.approx(hard_part + 3.0 * second_alone)


def test_learned_task_weights_divide_a_labels_loss_and_pay_for_it():
    random = np.random.default_rng(1)
    logits, soft, s = random.normal(size=(6, 2)), random.random((6, 2)), np.array([0.4, -1.3])
    labels, weights, tasks = (random.random((6, 2)) < 0.5) * 1.0, random.random(6), np.array([1.0, 0.2])
    shares = np.array([0.3, 0.9])  # of the teacher, label by label
    losses = (weights[:, None] * (cross_entropy(logits, labels) + shares * cross_entropy(logits, soft))).mean(axis=0)
    arguments = [torch.tensor(x) for x in (logits, labels, weights, tasks, soft)]
    found = multi_task_loss(*arguments, soft_weight=torch.tensor(shares), log_variances=torch.tensor(s))
    assert found.item() == pytest.approx((tasks * (np.exp(-s) * losses + s / 2)).sum())


def test_log_variances_start_where_the_loss_of_an_untrained_network_is_least():
    torch.testing.assert_close(
        best_log_variances(torch.tensor([0.5])).exp(), torch.tensor([2 * np.log(2)], dtype=torch.float32)
    )
    # A label that is always predicted at its rate of 0.1: no other log variance is better.
    logit, labels = float(np.log(0.1 / 0.9)), torch.tensor([[1.0]] + [[0.0]] * 9)
    arguments = (torch.full((10, 1), logit), labels, torch.ones(10), torch.ones(1))
    best = best_log_variances(torch.tensor([0.1]))
    at = [multi_task_loss(*arguments, log_variances=best + step).item() for step in (-0.1, 0.0, 0.1)]
    assert at[1] < min(at[0], at[2])
