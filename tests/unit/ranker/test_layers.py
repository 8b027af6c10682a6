"""Each block of the ranker against a computation by hand."""

from __future__ import annotations

import numpy as np
import torch

from tidewheel.ranker.layers import ContextGate, Embeddings, Experts, ExtractionLevel, GatedHeads, LowRankCross, TaskHeads


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


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def test_a_label_mixes_its_own_experts_with_the_shared_ones_and_never_anothers():
    """Two labels with one expert each and one shared, from one input; expert e is relu(w_e x)."""
    block = ExtractionLevel(width=1, hidden=(1,), shared=1, own=1, labels=2, is_last=False, dropout=0.0)
    block.experts.weights[0].data = torch.tensor([[[1.0]], [[10.0]], [[100.0]]])  # label 0's, label 1's, the shared one
    ln3 = float(np.log(3))
    # Gate logits at x = 1. Label 0: own 0, shared ln 3. Label 1: own ln 3, shared 0. Shared: all equal.
    block.gates.data = torch.tensor([[[0.0, 50.0, ln3]], [[50.0, ln3, 0.0]], [[0.0, 0.0, 0.0]]])
    found = block(torch.tensor([[1.0]]))
    want = [1 / 4 + 300 / 4, 30 / 4 + 100 / 4, 111 / 3]
    torch.testing.assert_close(found.flatten(), torch.tensor(want))


def test_the_last_of_two_levels_reads_each_stream_where_it_belongs():
    """Against the paper's equations, row by row and gate by gate."""
    random = np.random.default_rng(3)
    shared, own, labels, width, hidden = 2, 3, 2, 4, 5
    torch.manual_seed(0)
    block = ExtractionLevel(width, (hidden,), shared, own, labels, is_last=True, dropout=0.0)
    experts, bias = random.normal(size=(8, width, hidden)), random.normal(size=(8, 1, hidden))
    gates = random.normal(size=(labels, width, 8))
    for value, array in ((block.experts.weights[0], experts), (block.experts.biases[0], bias), (block.gates, gates)):
        value.data = torch.tensor(array, dtype=torch.float32)
    z = random.normal(size=(labels + 1, 6, width))
    found = block(torch.tensor(z, dtype=torch.float32)).detach().numpy()
    assert found.shape == (labels, 6, hidden)
    members = {0: [0, 1, 2], 1: [3, 4, 5], "shared": [6, 7]}
    for label in range(labels):
        seen = members[label] + members["shared"]
        for row in range(6):
            outputs = [np.maximum(z[label if e in members[label] else labels, row] @ experts[e] + bias[e, 0], 0) for e in seen]
            mix = softmax(z[label, row] @ gates[label][:, seen])
            np.testing.assert_allclose(found[label, row], mix @ np.stack(outputs), atol=1e-5)


def test_a_head_of_its_own_reads_each_labels_stream():
    block = TaskHeads(hidden=2, labels=2)
    block.heads.data, block.bias.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.5, -0.5])
    z = torch.tensor([[[1.0, 1.0]], [[2.0, 0.0]]])
    assert block(z).tolist() == [[3.5, 5.5]]


def test_a_new_context_gate_lets_everything_through():
    block = ContextGate(width=3, context=(1,), hidden=4)
    assert block(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[2.0, 1.0, 3.0]]  # context first


def test_the_context_scales_the_other_columns():
    block = ContextGate(width=3, context=(1,), hidden=1)
    # Hidden: relu(1 * c + 0 * o_1 + 0 * o_2 - 1) = 1 at c = 2. Scales: 2 sigmoid(ln 3) = 1.5, 2 sigmoid(-ln 3) = 0.5.
    ln3 = float(np.log(3))
    block.down.data, block.down_bias.data = torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([-1.0])
    block.up.data = torch.tensor([[ln3, -ln3]])
    torch.testing.assert_close(block(torch.tensor([[10.0, 2.0, 20.0]])), torch.tensor([[2.0, 15.0, 10.0]]))


def test_the_context_gate_looks_at_the_others_without_changing_them():
    block = ContextGate(width=2, context=(0,), hidden=1)
    block.down.data, block.up.data = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0]])
    x = torch.tensor([[1.0, 2.0]], requires_grad=True)
    block(x)[0, 1].backward()
    s = 1 / (1 + np.exp(-3.0))  # the gate's hidden unit is 1 + 2
    # d o' / d o is the scale alone; d o' / d c goes through the gate: 2 s (1 - s) o
    torch.testing.assert_close(x.grad, torch.tensor([[2 * s * (1 - s) * 2, 2 * s]], dtype=torch.float32))
