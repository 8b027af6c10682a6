"""Processes of one server count together. Expected numbers are added up by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tests.unit.serving.wire import metric
from tidewheel.serving.siblings import Siblings, bury


class Collected(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> list[Metric]:
        return self.families


def counted(requests: int, times: tuple[int, int], waiting: int, number: int, shares: dict[str, float]) -> list[Metric]:
    """What a process has: `requests` answered, so many of `times` within a tenth of a second and a whole one."""
    answers = CounterMetricFamily("requests", "Requests", labels=["status"])
    answers.add_metric(["200"], requests)
    seconds = HistogramMetricFamily("seconds", "Time", labels=[])
    fast, slow = times
    seconds.add_metric([], [("0.1", fast), ("1.0", fast + slow), ("+Inf", fast + slow)], 0.05 * fast + 0.5 * slow)
    info = GaugeMetricFamily("tidewheel_bundle_info", "Bundles", labels=["bundle"])
    share = GaugeMetricFamily("tidewheel_bundle_share", "Shares", labels=["bundle"])
    for bundle, part in shares.items():
        info.add_metric([bundle], 1)
        share.add_metric([bundle], part)
    held = GaugeMetricFamily("waiting", "Waiting", value=waiting)
    force = GaugeMetricFamily("tidewheel_assignment_number", "Number", value=number)
    return [answers, seconds, info, share, held, force, GaugeMetricFamily("tidewheel_processes", "Processes", value=1)]


FIRST = counted(10, (8, 2), waiting=3, number=7, shares={"a": 0.9, "b": 0.1})
SECOND = counted(5, (1, 4), waiting=1, number=6, shares={"a": 1.0})


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def text(siblings: Siblings, own: list[Metric]) -> bytes:
    return generate_latest(Collected(list(siblings.with_others(own))))


def test_counts_are_added_up_and_what_is_no_sum_is_what_holds_everywhere(tmp_path: Path, pipe: tuple[int, int]) -> None:
    first, second = (Siblings(tmp_path, place, pipe[1]) for place in (0, 1))
    first.publish(FIRST)
    found = text(second, SECOND)

    assert metric(found, "requests_total", 'status="200"') == 15
    assert [metric(found, "seconds_bucket", f'le="{edge}"') for edge in ("0.1", "1.0", "+Inf")] == [9, 15, 15]
    assert metric(found, "seconds_sum") == pytest.approx(0.05 * 9 + 0.5 * 6)
    assert metric(found, "waiting") == 4
    assert metric(found, "tidewheel_assignment_number") == 6, "in force where all have it"
    assert [metric(found, "tidewheel_bundle_share", f'bundle="{name}"') for name in "ab"] == [0.95, 0.05]
    assert [metric(found, "tidewheel_bundle_info", f'bundle="{name}"') for name in "ab"] == [1, 1]
    assert metric(found, "tidewheel_processes") == 2
    families = list(text_string_to_metric_families(found.decode()))
    assert [family.name for family in families] == [family.name for family in FIRST], "each family once"


def test_both_say_the_same_once_both_have_published(tmp_path: Path, pipe: tuple[int, int]) -> None:
    first, second = (Siblings(tmp_path, place, pipe[1]) for place in (0, 1))
    first.publish(FIRST)
    second.publish(SECOND)
    assert sorted(text(first, FIRST).splitlines()) == sorted(text(second, SECOND).splitlines())


def test_what_is_gone_leaves_its_counts_and_who_takes_its_place_goes_on(tmp_path: Path, pipe: tuple[int, int]) -> None:
    first, second = (Siblings(tmp_path, place, pipe[1]) for place in (0, 1))
    for generation in (1, 2, 3):
        second.publish(SECOND)
        bury(tmp_path, 1)
        found = text(first, FIRST)
        assert metric(found, "requests_total") == 10 + 5 * generation
        assert metric(found, "seconds_count") == 10 + 5 * generation
        assert (metric(found, "tidewheel_processes"), metric(found, "waiting")) == (1, 3)
        assert metric(found, "tidewheel_assignment_number") == 7
        second = Siblings(tmp_path, 1, pipe[1])
        assert metric(text(second, SECOND), "requests_total") == 5 * (generation + 1), "its own and what was before"
        assert sorted(os.listdir(tmp_path)) == ["1.metrics"]


def test_a_process_that_never_counted_leaves_nothing(tmp_path: Path) -> None:
    bury(tmp_path, 3)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    siblings = Siblings(tmp_path, 0, pipe[1])
    siblings.publish(FIRST)
    (tmp_path / "0.partial").mkdir()
    siblings.publish(SECOND)
    siblings.publish(SECOND)
    said = capsys.readouterr().err
    assert said.count("metrics of this process are not renewed") == 1
    (tmp_path / "0.partial").rmdir()
    siblings.publish(SECOND)
    other = Siblings(tmp_path, 1, pipe[1])
    assert metric(text(other, FIRST), "requests_total") == 15


def test_a_beat_waits_for_nobody(tmp_path: Path) -> None:
    read, write = os.pipe()
    siblings = Siblings(tmp_path, 0, write)
    siblings.beat()
    assert os.read(read, 10) == b"\n"
    os.write(write, b"x" * 65536)  # full
    siblings.beat()
    os.close(read)  # nobody reads any more
    siblings.beat()
    os.close(write)
