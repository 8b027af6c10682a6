"""What a candidate makes of a user's sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.unit.ranker.networks import trained_like
from tidewheel.contracts.network import NetworkConfig
from tidewheel.errors import ContractError
from tidewheel.ranker.encoding import SequenceColumns
from tidewheel.ranker.export import export_graph
from tidewheel.ranker.model import Ranker, load_ranker, save_ranker
from tidewheel.ranker.network import Network, multiply_adds
from tidewheel.ranker.sequence import TargetAttention

SIZES, NUM_NUMBERS, LABELS = (5, 7), 2, ("click", "like")
CLICKS = SequenceColumns(name="clicks", of=1, length=3, first_id=2, first_number=2)
LIKES = SequenceColumns(name="likes", of=0, length=2, first_id=5, first_number=5)
CONFIG = NetworkConfig(embedding_dim=3, cross_layers=1, cross_rank=4, experts=2, hidden=(8,), sequence_hidden=4)


def network(**more: object) -> Network:
    given = {"config": CONFIG, "sizes": SIZES, "num_numbers": NUM_NUMBERS, "labels": LABELS, "sequences": (CLICKS, LIKES)}
    return Network.model_validate(given | more)


def inputs(rows: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Some rows have all their items, some a few, some none."""
    generator = torch.Generator().manual_seed(2)
    sizes = (*SIZES, *(SIZES[place.of] for place in (CLICKS, LIKES) for _ in range(place.length)))
    ids = torch.stack([torch.randint(0, size, (rows,), generator=generator) for size in sizes], dim=1)
    ids[0, 2:] = 0
    ages = torch.log1p(torch.randint(0, 100, (rows, 5), generator=generator)) * (ids[:, 2:] > 0)
    return ids, torch.cat([torch.randn(rows, NUM_NUMBERS, generator=generator), ages], dim=1)


def test_attention_by_hand():
    """Two items of D = 1, H = 1: weight_j = 1 + 2 relu(e_j - e_c + e_j e_c + 0.5 age_j - 1), the third is not there."""
    attention = TargetAttention(dim=1, hidden=1, time_mask_hours=0.0)
    attention.weight.data = torch.tensor([[1.0], [-1.0], [1.0], [0.5]])
    attention.bias.data = torch.tensor([-1.0])
    attention.out.data = torch.tensor([[2.0]])
    items, candidate = torch.tensor([[[2.0], [0.5], [9.0]]]), torch.tensor([[3.0]])
    ages, is_there = torch.tensor([[4.0, 2.0, 0.0]]), torch.tensor([[True, True, False]])
    # 2 - 3 + 6 + 2 - 1 = 6 -> 1 + 12; 0.5 - 3 + 1.5 + 1 - 1 = -1 -> 1 + 0.
    assert attention(items, candidate, ages, is_there).tolist() == [[13 * 2.0 + 1 * 0.5]]


def test_an_untrained_summary_is_the_sum_of_the_items_that_are_there():
    attention = TargetAttention(dim=2, hidden=4, time_mask_hours=0.0)
    items = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    found = attention(items, torch.ones(1, 2), torch.zeros(1, 3), torch.tensor([[True, True, False]]))
    assert found.tolist() == [[4.0, 6.0]]


def test_in_training_the_items_of_a_random_window_are_hidden_and_never_at_serving():
    """Of items that are 0, 5 and 20 hours old, with T uniform in [0, 10): hidden always, half of the time, never."""
    attention = TargetAttention(dim=3, hidden=4, time_mask_hours=10.0)
    rows = 20_000
    items = torch.eye(3).expand(rows, 3, 3)
    ages, is_there = torch.log1p(torch.tensor([0.0, 5.0, 20.0])).expand(rows, 3), torch.ones(rows, 3, dtype=torch.bool)
    torch.manual_seed(0)
    shares = attention.train()(items, torch.ones(rows, 3), ages, is_there).mean(dim=0)
    assert shares[0].item() == pytest.approx(0.0, abs=0.001)
    assert shares[1].item() == pytest.approx(0.5, abs=4 * 0.5 / rows**0.5)
    assert shares[2].item() == 1.0
    assert attention.eval()(items, torch.ones(rows, 3), ages, is_there).min().item() == 1.0


@pytest.mark.parametrize("blocks", [{}, {"cross": "parallel", "mixture": "ple", "context": "epnet"}], ids=["default", "all"])
@pytest.mark.parametrize("rows", [1, 33])
def test_the_exported_graph_computes_what_torch_computes(blocks: dict[str, str], rows: int, tmp_path: Path):
    ranker = trained_like(network(config=CONFIG.model_copy(update=blocks), context_ids=(0,)))
    ids, numbers = inputs(rows)
    export_graph(ranker, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"), providers=["CPUExecutionProvider"])
    found = np.stack(session.run(list(LABELS), {"ids": ids.numpy(), "numbers": numbers.numpy()}), axis=1)
    with torch.no_grad():
        np.testing.assert_allclose(found, ranker(ids, numbers).numpy(), atol=1e-6, rtol=1e-5)


def test_what_stands_where_no_item_is_changes_nothing():
    ranker = trained_like(network())
    ids, numbers = inputs()
    other = numbers.clone()
    other[:, NUM_NUMBERS:] += 5.0 * (ids[:, 2:] == 0)
    with torch.no_grad():
        assert torch.equal(ranker(ids, numbers), ranker(ids, other))


def test_a_sequence_is_read_with_the_embeddings_of_its_feature():
    """Only the rows of column 1, which the clicks are of, can learn from an item of theirs."""
    ranker = trained_like(network(sequences=(CLICKS,)))
    ids = torch.tensor([[3, 4, 6, 0, 0]])
    ranker(ids, torch.zeros(1, NUM_NUMBERS + 3)).sum().backward()
    touched = ranker.embeddings.table.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == [3, SIZES[0] + 4, SIZES[0] + 6]


def test_without_sequences_the_network_is_what_it_is_without_this_block():
    plain, other = network(sequences=()), Network(config=CONFIG, sizes=SIZES, num_numbers=NUM_NUMBERS, labels=LABELS)
    assert [name for name, _ in Ranker(plain).named_parameters() if "sequence" in name] == []
    assert (plain.width, plain.input_widths, multiply_adds(plain)) == (8, (2, 2), multiply_adds(other))


def test_a_network_with_sequences_loads_with_equal_outputs_and_counts_its_cost(tmp_path: Path):
    ranker = trained_like(network())
    save_ranker(ranker, tmp_path / "weights.safetensors", tmp_path / "network.json")
    again = load_ranker(tmp_path / "weights.safetensors", tmp_path / "network.json").eval()
    with torch.no_grad():
        assert torch.equal(ranker(*inputs()), again(*inputs()))
    # Five items, each 10 columns to 4 units, 4 to a weight, 3 weighed; 6 more columns in every other block.
    wider = Network(config=CONFIG, sizes=SIZES, num_numbers=NUM_NUMBERS + 6, labels=LABELS)
    assert multiply_adds(network()) == multiply_adds(wider) + 5 * (10 * 4 + 4 + 3)


def test_a_network_file_whose_sequences_overlap_is_refused(tmp_path: Path):
    good = network().write(tmp_path / "network.json")
    good.write_text(good.read_text(encoding="utf-8").replace('"first_id": 5', '"first_id": 4'), encoding="utf-8")
    with pytest.raises(
        ContractError, match=r"sequence likes is of column 0 and begins at id 4 .* expected .* id 5 and number 5"
    ):
        Network.read(good)
