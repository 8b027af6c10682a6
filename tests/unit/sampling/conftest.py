from __future__ import annotations

from collections.abc import Iterator

import pytest

from tidewheel.logs.session import embedded_session


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    with embedded_session() as session:
        yield session
