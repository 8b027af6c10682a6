"""A cluster that is away is waited for, and not for ever."""

from __future__ import annotations

import pytest

from tidewheel.errors import ConfigError
from tidewheel.pods.api import LOOK_SECONDS, PATIENCE_SECONDS, AwayError, patiently


class Cluster:
    """Answers from the second `back` on; until then it says what `words` says at that time."""

    def __init__(self, back: float, words: str = "does not answer") -> None:
        self.now, self.back, self.words = 0.0, back, words
        self.asked = 0
        self.told: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def ask(self) -> str:
        self.asked += 1
        if self.now < self.back:
            raise AwayError(self.words)
        return "here"

    def patiently(self) -> str:
        return patiently(self.ask, self.told.append, self.sleep, lambda: self.now)


def test_one_that_answers_is_asked_once() -> None:
    cluster = Cluster(back=0.0)
    assert (cluster.patiently(), cluster.asked, cluster.told) == ("here", 1, [])


def test_one_that_comes_back_is_waited_for_and_why_is_told_once() -> None:
    cluster = Cluster(back=PATIENCE_SECONDS)
    assert cluster.patiently() == "here"
    assert (cluster.now, cluster.told) == (PATIENCE_SECONDS, ["does not answer"])
    assert cluster.asked == PATIENCE_SECONDS / LOOK_SECONDS + 1


def test_one_that_stays_away_is_given_up() -> None:
    cluster = Cluster(back=float("inf"))
    with pytest.raises(AwayError, match="does not answer"):
        cluster.patiently()
    assert PATIENCE_SECONDS < cluster.now <= PATIENCE_SECONDS + LOOK_SECONDS


def test_a_refusal_is_no_absence() -> None:
    def refused() -> str:
        raise ConfigError("may not")

    with pytest.raises(ConfigError, match="may not"):
        patiently(refused, [].append, Cluster(0.0).sleep)
