"""What tests of the network share."""

from __future__ import annotations

import torch

from tidewheel.ranker.model import Network, Ranker


def trained_like(network: Network) -> Ranker:
    """A ranker whose parameters are all far from their start."""
    torch.manual_seed(1)
    ranker = Ranker(network).eval()
    for value in ranker.parameters():
        value.data += 0.3 * torch.randn_like(value)
    return ranker
