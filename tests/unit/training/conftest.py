from __future__ import annotations

import pytest

from tests.unit.training.networks import SMALL_NETWORK
from tidewheel.ranker.model import Network
from tidewheel.training.encode import encoded_rows, fitted_encoders
from tidewheel.training.rows import EncodedRows


@pytest.fixture(scope="session")
def encoded(tiny_run, tmp_path_factory: pytest.TempPathFactory) -> tuple[EncodedRows, Network]:
    """The rows of `tiny_run` as training reads them, and `SMALL_NETWORK` for them."""
    recipe, folder = tiny_run.recipe, tmp_path_factory.mktemp("rows")
    encoders = fitted_encoders(tiny_run.train_dir, recipe.features, recipe.label_names, folder)
    network = Network.of(SMALL_NETWORK, encoders, recipe.label_names)
    return encoded_rows(tiny_run.train_dir, encoders, recipe.label_names, folder), network
