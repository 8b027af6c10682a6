from __future__ import annotations

import re
from datetime import UTC, datetime

from tidewheel.cluster.compiling import SCHEDULED_AT, wanted_of, window_end
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.schedules import Schedules

FILE = {
    "schema": "tidewheel/schedules/v1",
    "service_account": "somebody",
    "schedules": [
        {"name": "daily", "recipe": "a.yaml", "cron": "0 3 * * *", "reason": "nightly"},
        {"name": "noon", "recipe": "a.yaml", "cron": "0 12 * * *", "enabled": False},
    ],
}


def evaluated(expression: str, scheduled: datetime) -> str:
    """What Argo Workflows makes of it: the same numbers, its date function by hand."""
    inside = expression.removeprefix("{{=sprig.dateInZone('2006-01-02T15:04:05Z', ").removesuffix(", 'UTC')}}")
    numbers = inside.replace(SCHEDULED_AT, str(int(scheduled.timestamp())))
    assert re.fullmatch(r"\d+ - \(\d+ - \d+\) % \d+", numbers)
    return datetime.fromtimestamp(eval(numbers), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_scheduled_window_ends_at_the_last_step_of_the_recipes_windows(quickstart: Recipe) -> None:
    """quickstart: first_end 2026-01-12, stride_days 7."""
    expression = window_end(quickstart.window)

    assert evaluated(expression, datetime(2026, 1, 12, tzinfo=UTC)) == "2026-01-12T00:00:00Z"
    assert evaluated(expression, datetime(2026, 1, 18, 23, 59, tzinfo=UTC)) == "2026-01-12T00:00:00Z"
    assert evaluated(expression, datetime(2026, 1, 26, 3, tzinfo=UTC)) == "2026-01-26T00:00:00Z"


def test_an_expression_has_no_quote_that_its_places_in_json_would_break(quickstart: Recipe) -> None:
    assert '"' not in window_end(quickstart.window)
    assert "\\" not in window_end(quickstart.window)


def test_each_recipe_is_read_and_compiled_once(quickstart: Recipe) -> None:
    asked: list[str] = []

    def recipe_of(name: str) -> Recipe:
        asked.append(name)
        return quickstart

    daily, noon = wanted_of(Schedules.model_validate(FILE), recipe_of)

    assert asked == ["a.yaml"]
    assert daily.pipeline == noon.pipeline
    assert (daily.cron, daily.service_account, daily.is_enabled) == ("0 0 3 * * *", "somebody", True)
    assert (daily.parameters["reason"], daily.parameters["dry_run"], noon.is_enabled) == ("nightly", False, False)
    assert daily.digest != noon.digest
