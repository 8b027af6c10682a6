"""The ranker: how raw columns become scores, and how it lies in a bundle. Nothing here imports torch by itself."""

from tidewheel.ranker.bundle import OpenBundle, load_bundle, load_model, open_bundle, publish
from tidewheel.ranker.columns import columns_of
from tidewheel.ranker.encoding import Encoded, Encoders
from tidewheel.ranker.scorer import GraphScorer, Scorer

__all__ = [
    "Encoded",
    "Encoders",
    "GraphScorer",
    "OpenBundle",
    "Scorer",
    "columns_of",
    "load_bundle",
    "load_model",
    "open_bundle",
    "publish",
]
