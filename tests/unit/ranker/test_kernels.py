"""The kernels against plain torch."""

from __future__ import annotations

import math

import torch

from tidewheel.ranker.kernels import lookup, relu_dropout


def test_a_lookup_and_its_gradient_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 9, (40, 3), generator=generator)  # ids that come again and again
    wanted = torch.randn(40, 3, 5, generator=generator)
    ours, theirs = (torch.randn(12, 5, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    (lookup(rows, ours) * wanted).sum().backward()
    (torch.nn.functional.embedding(rows, theirs) * wanted).sum().backward()
    assert torch.equal(lookup(rows, ours), torch.nn.functional.embedding(rows, ours))
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert not ours.grad[9:].any()


def test_without_training_or_rate_it_is_relu():
    h = torch.randn(50, 7)
    assert torch.equal(relu_dropout(h, 0.5, is_training=False), torch.relu(h))
    assert torch.equal(relu_dropout(h, 0.0, is_training=True), torch.relu(h))


def test_a_share_of_the_elements_is_dropped_and_the_rest_scaled():
    torch.manual_seed(0)
    out = relu_dropout(torch.full((100, 1000), 3.0), 0.25, is_training=True)
    assert set(out.unique().tolist()) == {0.0, 4.0}
    share = (out == 0).float().mean().item()
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 100_000)


def test_the_gradient_passes_where_the_output_is_not_zero():
    torch.manual_seed(0)
    h = torch.randn(6, 50, requires_grad=True)
    out = relu_dropout(h, 0.25, is_training=True)
    out.backward(torch.full((6, 50), 3.0))
    torch.testing.assert_close(h.grad, torch.where(out > 0, 4.0, 0.0))
    assert (out == 0).sum() > (h <= 0).sum()


def test_equal_seeds_drop_the_same_and_others_do_not():
    h = torch.ones(33, 3)  # not a multiple of eight
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(relu_dropout(h, 0.5, is_training=True))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
