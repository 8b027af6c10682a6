"""The network of the tests that train on other devices or machines: without dropout, so that they can be compared."""

from tidewheel.contracts.network import NetworkConfig

SMALL_NETWORK = NetworkConfig(embedding_dim=4, cross_layers=1, cross_rank=4, experts=2, hidden=(8,), dropout=0.0)
