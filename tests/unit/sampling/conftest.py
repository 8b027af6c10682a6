from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.sampling.real_spark import real_spark
from tidewheel.logs.session import embedded_session


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    with embedded_session() as session:
        yield session


@pytest.fixture(scope="session")
def spark_itself(spark: object) -> Iterator[object]:
    """Beside the embedded session, which marks the environment for Connect."""
    with real_spark() as session:
        yield session
