"""Several writers, one folder, any of them dead at any moment: whole segments, and a marker only when nobody can write."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tidewheel.serving.partitions import Partitions

DAY = date(2026, 1, 5)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 1, 6, tzinfo=UTC)
GRACE = timedelta(minutes=2)


def rows(*values: int) -> pa.Table:
    return pa.table({"x": list(values)})


def seen(root: Path, day: date = DAY) -> list[int]:
    """What a reader finds: it knows nothing of hidden folders."""
    paths = [path for path in root.glob(f"date={day}/*") if not path.name.startswith((".", "_"))]
    return sorted(value for path in paths for value in pq.read_table(path, partitioning=None)["x"].to_pylist())


def is_complete(root: Path, day: date = DAY) -> bool:
    return (root / f"date={day}" / "_SUCCESS").exists()


def test_a_segment_is_seen_whole_and_under_a_name_of_its_own(tmp_path: Path) -> None:
    writers = [Partitions(tmp_path, "a"), Partitions(tmp_path, "b")]
    for writer in writers:
        assert writer.enter(DAY, NOON)
        assert all(writer.publish(DAY, rows(at), NOON) for at in (1, 2))

    assert seen(tmp_path) == [1, 1, 2, 2]


def test_a_day_is_complete_when_its_last_writer_has_left_and_the_grace_is_over(tmp_path: Path) -> None:
    first, second = Partitions(tmp_path, "a"), Partitions(tmp_path, "b")
    first.enter(DAY, MIDNIGHT)
    second.enter(DAY, MIDNIGHT)
    first.leave(DAY)

    assert first.close_ended(MIDNIGHT + GRACE - timedelta(seconds=1), GRACE) == []
    second.beat(MIDNIGHT + GRACE)
    assert first.close_ended(MIDNIGHT + GRACE, GRACE) == []  # the second may still write
    second.leave(DAY)
    assert first.close_ended(MIDNIGHT + GRACE, GRACE) == [DAY]

    assert [path.name for path in (tmp_path / f"date={DAY}").iterdir()] == ["_SUCCESS"]


def test_today_is_never_marked(tmp_path: Path) -> None:
    writer = Partitions(tmp_path, "a")
    writer.enter(DAY, NOON)
    writer.leave(DAY)

    assert writer.close_ended(NOON + timedelta(hours=11), GRACE) == []
    assert not is_complete(tmp_path)


def test_a_writer_that_was_killed_is_taken_over_after_the_grace_and_leaves_no_half_file(tmp_path: Path) -> None:
    dead, alive = Partitions(tmp_path, "dead"), Partitions(tmp_path, "alive")
    dead.enter(DAY, MIDNIGHT)
    dead.publish(DAY, rows(1), MIDNIGHT)
    (tmp_path / f"date={DAY}" / ".open-dead" / ".part-x.parquet.partial").write_bytes(b"PAR1 and then the power went")

    dead.beat(MIDNIGHT + timedelta(seconds=60))

    assert alive.close_ended(MIDNIGHT + GRACE, GRACE) == []
    assert alive.close_ended(MIDNIGHT + GRACE + timedelta(seconds=60), GRACE) == [DAY]
    assert seen(tmp_path) == [1]
    assert sum(1 for _ in (tmp_path / f"date={DAY}").iterdir()) == 2


def test_a_writer_that_only_slept_cannot_change_a_day_that_was_closed_meanwhile(tmp_path: Path) -> None:
    asleep, awake = Partitions(tmp_path, "asleep"), Partitions(tmp_path, "awake")
    asleep.enter(DAY, NOON)
    assert awake.close_ended(MIDNIGHT + GRACE, GRACE) == [DAY]

    assert not asleep.publish(DAY, rows(1), MIDNIGHT + GRACE)
    assert not asleep.enter(DAY, MIDNIGHT + GRACE)
    assert seen(tmp_path) == []
    asleep.leave(DAY)
    asleep.beat(MIDNIGHT + GRACE)


def test_a_day_that_is_about_to_be_marked_takes_no_new_writer(tmp_path: Path) -> None:
    folder = tmp_path / f"date={DAY}"
    folder.mkdir()
    (folder / ".closing").touch()  # a closer died right here

    late = Partitions(tmp_path, "late")
    assert not late.enter(DAY, MIDNIGHT)
    assert late.close_ended(MIDNIGHT + GRACE, GRACE) == [DAY]
    assert [path.name for path in folder.iterdir()] == ["_SUCCESS"]


def test_partitions_that_no_server_wrote_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"date={DAY}").mkdir()
    (tmp_path / "notes").mkdir()
    pq.write_table(rows(1), tmp_path / f"date={DAY}" / "part-0.parquet")

    assert Partitions(tmp_path, "a").close_ended(MIDNIGHT + timedelta(days=9), GRACE) == []
    assert not is_complete(tmp_path)


def test_a_full_disk_is_an_error_and_nothing_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(table: pa.Table, path: Path, **options: object) -> None:
        path.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    writer = Partitions(tmp_path, "a")
    writer.enter(DAY, NOON)
    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", full)
        with pytest.raises(OSError, match="No space left"):
            writer.publish(DAY, rows(1), NOON)
    assert seen(tmp_path) == []
    assert writer.publish(DAY, rows(1), NOON)
    assert seen(tmp_path) == [1]


class Writers(RuleBasedStateMachine):
    """Writers that come, write, sleep, die and close in any order."""

    writers = st.sampled_from(["a", "b", "c"])

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.now = MIDNIGHT - timedelta(seconds=30)
        self.lives = 0
        self.alive: dict[str, Partitions] = {}
        self.published: list[int] = []
        self.frozen: list[int] | None = None

    @rule(name=writers)
    def begin(self, name: str) -> None:
        self.lives += 1
        self.alive[name] = Partitions(self.root, f"{name}{self.lives}")  # who had the name before was killed
        self.alive[name].enter(DAY, self.now)

    @rule(name=writers)
    def publish(self, name: str) -> None:
        writer = self.alive.get(name)
        if writer is not None and DAY in writer.entered and writer.publish(DAY, rows(len(self.published)), self.now):
            self.published.append(len(self.published))

    @rule(name=writers)
    def beat(self, name: str) -> None:
        if name in self.alive:
            self.alive[name].beat(self.now)

    @rule(name=writers)
    def leave(self, name: str) -> None:
        if name in self.alive:
            self.alive[name].leave(DAY)

    @rule(name=writers)
    def close(self, name: str) -> None:
        if name in self.alive:
            self.alive[name].close_ended(self.now, GRACE)

    @rule(seconds=st.integers(1, 150))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def what_was_published_is_seen_and_a_complete_day_never_changes(self) -> None:
        found = seen(self.root)
        assert found == self.published
        if is_complete(self.root):
            self.frozen = self.frozen if self.frozen is not None else found
            assert found == self.frozen

    def teardown(self) -> None:
        self.folder.cleanup()


Writers.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestWriters = Writers.TestCase
