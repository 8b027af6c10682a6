"""Updates of parameters are those of torch's optimizers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tidewheel.contracts.learning import OptimizerConfig
from tidewheel.ranker.loss import multi_task_loss
from tidewheel.training import loop
from tidewheel.training.optimizer import Optimizer


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
    ours = Optimizer([("wide_table", value)], OptimizerConfig(batch_size=1, wide_rate=0.1, wide_memory=4.0), torch.ones(2))
    theirs = torch.optim.Adagrad([peer], lr=0.2, initial_accumulator_value=4.0, eps=0.0)
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
