"""Training on a GPU is the same code on another device. Skipped without one."""

from __future__ import annotations

import pytest
import torch

from tests.unit.training.networks import SMALL_NETWORK
from tidewheel.contracts.learning import OptimizerConfig, TrainConfig
from tidewheel.ranker.kernels import lookup, relu_dropout
from tidewheel.store import Store
from tidewheel.training.checkpoint import KIND
from tidewheel.training.train import fit_here

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")

CONFIG = TrainConfig(
    device="cuda",
    network=SMALL_NETWORK,
    optimizer=OptimizerConfig(epochs=3, batch_size=256, learning_rate=0.001),
    checkpoint_every_steps=5,
    task_weighting="uncertainty",
)


def test_a_gpu_trains_what_a_cpu_trains_up_to_rounding(tiny_run, encoded):
    on_gpu, report = fit_here(*encoded, tiny_run.recipe.labels, CONFIG)
    on_cpu, _ = fit_here(*encoded, tiny_run.recipe.labels, CONFIG.model_copy(update={"device": "cpu"}))
    assert report.steps == 24
    for name, value in on_gpu.state_dict().items():
        assert value.device.type == "cpu", name
        torch.testing.assert_close(value, on_cpu.state_dict()[name], atol=2e-3, rtol=2e-2)


def test_a_training_that_was_stopped_goes_on_bit_by_bit_on_a_gpu(tiny_run, encoded, tmp_path):
    store = Store.open(str(tmp_path / "store"))

    def stop(share: float, words: str) -> None:
        if share > 0.8:
            raise KeyboardInterrupt

    undisturbed, _ = fit_here(*encoded, tiny_run.recipe.labels, CONFIG)
    with pytest.raises(KeyboardInterrupt):
        fit_here(*encoded, tiny_run.recipe.labels, CONFIG, stop, store)
    assert store.folders(KIND)
    resumed, report = fit_here(*encoded, tiny_run.recipe.labels, CONFIG, checkpoints=store)
    assert report.resumed_at > 0
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, undisturbed.state_dict()[name]), name


def test_half_the_elements_survive_and_lookups_add_their_gradients():
    torch.manual_seed(0)
    h = torch.ones(1000, 64, device="cuda", requires_grad=True)
    out = relu_dropout(h, 0.5, True)
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert abs(float((out > 0).float().mean()) - 0.5) < 0.02
    table = torch.zeros(3, 2, device="cuda", requires_grad=True)
    lookup(torch.tensor([[0, 2], [2, 2]], device="cuda"), table).sum().backward()
    assert table.grad is not None
    assert table.grad.tolist() == [[1.0, 1.0], [0.0, 0.0], [3.0, 3.0]]
