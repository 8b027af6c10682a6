"""Each block of the ranker against a computation by hand."""

from __future__ import annotations

import numpy as np
import torch

from tidewheel.ranker.layers import Embeddings, Experts, GatedHeads, LowRankCross


def test_each_feature_reads_its_own_rows_of_the_table():
    block = Embeddings((2, 3), dim=1)
    block.table.data = torch.tensor([[0.0], [1.0], [10.0], [11.0], [12.0]])
    assert block.offsets.tolist() == [0, 2]
    ids = torch.tensor([[1, 0], [0, 2]])
    assert block(ids + block.offsets).tolist() == [[1.0, 10.0], [0.0, 12.0]]


def test_a_cross_multiplies_the_input_with_a_low_rank_image():
    block = LowRankCross(width=2, rank=1)
    block.down.data, block.up.data = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]])
    block.bias.data = torch.tensor([0.5, -0.5])
    x0, x = torch.tensor([[2.0, 3.0]]), torch.tensor([[1.0, 1.0]])
    # V x = 1 + 2 = 3; U (V x) + b = (9.5, 11.5); times x0 = (19, 34.5); plus x
    assert block(x0, x).tolist() == [[20.0, 35.5]]


def test_experts_are_separate_perceptrons():
    block = Experts(width=2, hidden=(1,), experts=2, dropout=0.0)
    block.weights[0].data = torch.tensor([[[1.0], [1.0]], [[1.0], [-1.0]]])
    block.biases[0].data = torch.tensor([[[0.5]], [[0.0]]])
    assert block(torch.tensor([[1.0, 2.0]])).tolist() == [[[3.5]], [[0.0]]]  # the second: relu(-1)


def test_a_gate_a_label_mixes_the_experts():
    block = GatedHeads(width=1, hidden=1, experts=2, labels=2)
    # Label 0: equal gates. Label 1: gate logits (ln 3, 0) at x = 1, so weights 3/4 and 1/4.
    block.gates.data = torch.tensor([[0.0, 0.0, float(np.log(3)), 0.0]])
    block.heads.data, block.bias.data = torch.tensor([[2.0], [1.0]]), torch.tensor([0.0, 10.0])
    h = torch.tensor([[[1.0]], [[5.0]]])
    torch.testing.assert_close(block(torch.tensor([[1.0]]), h), torch.tensor([[2 * 3.0, 10 + 0.75 + 1.25]]))
