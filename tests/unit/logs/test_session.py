from __future__ import annotations

import os

from tidewheel.logs import embedded_session


def test_sessions_follow_each_other_and_leave_the_environment_as_it_was(spark) -> None:
    before = dict(os.environ)
    for _ in range(2):
        with embedded_session() as session:
            assert session.range(3).count() == 3
            assert session.conf.get("spark.sql.session.timeZone") == "UTC"
    assert dict(os.environ) == before
    assert spark.range(2).count() == 2
