"""What gc removes: never what serves, may serve again, may teach or is advertised, whatever the graph of releases."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.contracts.test_ledger import START, history
from tests.unit.registry.memory import DyingStore, Fuse, Killed
from tidewheel.contracts.base import Contract
from tidewheel.contracts.dataset import FileEntry
from tidewheel.contracts.ledger import Decision, LedgerEntry, earlier_productions, production_after
from tidewheel.contracts.retention import RetentionRules
from tidewheel.contracts.teacher import TeacherRules, choose_teacher
from tidewheel.errors import ContractError, RetryableError
from tidewheel.registry import Ledger
from tidewheel.registry.removed import manifest_of
from tidewheel.registry.retention import Trace, advertised, carry_out, plan_sweep, retained
from tidewheel.registry.traffic import AssignmentProjection
from tidewheel.registry.versions import wanted_aliases
from tidewheel.store import Verification

NAMES = "abcdefgh"
RULES = RetentionRules(releases=2, days=1)
LATER = START + timedelta(days=365)  # when nothing is young


class Tiny(Contract):
    """A folder with one file, which stands for a bundle."""

    name: str
    files: tuple[FileEntry, ...] = ()


class DyingAtRemovals(DyingStore):
    def remove(self, kind: str, digest: str) -> None:
        self.fuse.burn()
        super().remove(kind, digest)


@dataclass(frozen=True)
class Place:
    """A ledger and the bundles it names, in a real store."""

    store: DyingAtRemovals
    ledger: Ledger
    entries: tuple[LedgerEntry, ...]
    digests: dict[str, str]

    def loads(self, bundle: str) -> bool:
        try:
            self.store.load("bundles", bundle, Tiny, full=True)
        except ContractError:
            return False
        return True

    def sweep(self, rules: RetentionRules, teaching: TeacherRules, now: datetime = LATER) -> list[tuple[str, str]]:
        kept = advertised(self.store, "quickstart") | retained(self.entries, rules, teaching, now)
        traces = [
            Trace(entry.run_id, entry.time, frozenset({("bundles", entry.bundle)}))
            for entry in self.entries
            if entry.decision in (Decision.PROMOTED, Decision.REJECTED, Decision.ROLLED_BACK)
        ]
        return carry_out(self.ledger, len(self.entries), plan_sweep(self.entries, kept, traces, rules, now))


@contextmanager
def place(moves: list[tuple[str, str, str | None]]) -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as root:
        store = DyingAtRemovals.at(Path(root), Verification())
        store.fuse = Fuse(10_000)
        digests = {}
        for name in NAMES:
            folder = store.staging("bundle")
            (folder / "weights.safetensors").write_text(f"weights of {name}")
            digests[name], _ = store.publish("bundles", folder, Tiny(name=name))
        entries = history([(word, digests[bundle], digests[teacher] if teacher else None) for word, bundle, teacher in moves])
        ledger = Ledger(store, "quickstart")
        for entry in entries:
            ledger.append(entry)
        AssignmentProjection(store).repair(entries)
        yield Place(store, ledger, entries, digests)


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[str, str, str | None]]:
    """Releases, rejections and decisions by hand, each about a bundle that it can be about; teachers are earlier bundles."""
    moves: list[tuple[str, str, str | None]] = [("bootstrap", "a", None)]
    served, teacher_of = ["a"], {"a": None}
    for name in draw(st.permutations(NAMES[1:]).map(lambda names: names[: len(NAMES) - 1])):
        word = draw(st.sampled_from(["promoted", "promoted", "promoted", "rejected", "rolled_back"]))
        teacher_of[name] = draw(st.sampled_from([None, *teacher_of]))
        moves.append((word, name, teacher_of[name]))
        served += [name] if word == "promoted" else []
        by_hand = draw(st.sampled_from(["", "", "reverted", "quarantined"]))
        if by_hand == "reverted" and len(set(served)) > 1:
            target = draw(st.sampled_from([bundle for bundle in dict.fromkeys(served) if bundle != served[-1]]))
            moves.append(("reverted", target, teacher_of[target]))
            served.append(target)
        elif by_hand == "quarantined":
            bundle = draw(st.sampled_from(list(teacher_of)))
            moves.append(("quarantined", bundle, teacher_of[bundle]))
    return moves[: draw(st.integers(1, len(moves)))]


rules = st.builds(RetentionRules, releases=st.integers(1, 3), days=st.integers(0, 3))
teachings = st.builds(TeacherRules, max_generations=st.integers(1, 4), max_age_days=st.integers(1, 40))


@settings(max_examples=60, deadline=None)
@given(graphs(), rules, teachings, st.sets(st.sampled_from(NAMES)))
def test_what_serves_may_serve_again_may_teach_or_is_named_still_loads(
    moves: list[tuple[str, str, str | None]], kept: RetentionRules, teaching: TeacherRules, misfits: set[str]
) -> None:
    with place(moves) as made:
        unfit = {made.digests[name]: "it does not fit" for name in misfits}
        end = max(entry.window.end for entry in made.entries if entry.window)

        first = made.sweep(kept, teaching)

        needed = {production_after(made.entries), *wanted_aliases(made.entries).values()}
        needed |= {*earlier_productions(made.entries)[: kept.releases]}
        for days in (0, 7, 21):
            choice = choose_teacher(made.entries, teaching, end + timedelta(days=days), lambda entry: unfit.get(entry.bundle))
            needed |= {choice.bundle}
        needed |= {*advertised(made.store, "quickstart")}
        assert all(made.loads(bundle) for bundle in needed - {None})
        decided = {entry.bundle for entry in made.entries}
        assert {digest for _, digest in first} == {bundle for bundle in decided if not made.loads(bundle)}
        assert all(made.loads(digest) for digest in {*made.digests.values()} - decided), "nobody's bundles were touched"
        assert all(manifest_of(made.store, "bundles", bundle) is not None for bundle in decided), "lineage outlives bytes"
        assert made.sweep(kept, teaching) == []


@settings(max_examples=25, deadline=None)
@given(graphs(), st.integers(0, 6))
def test_killed_between_any_two_removals_it_leaves_no_half_and_is_ended_by_the_next(
    moves: list[tuple[str, str, str | None]], removals: int
) -> None:
    with place(moves) as whole:
        whole.sweep(RULES, TeacherRules())
        want = {name for name, digest in whole.digests.items() if whole.loads(digest)}
    with place(moves) as cut:
        cut.store.fuse.left = 2 * removals + 1  # a record and a removal a folder: dies between the two
        try:
            cut.sweep(RULES, TeacherRules())
        except Killed:
            cut.store.fuse.left = 10_000
            assert all(cut.loads(digest) for digest in cut.digests.values() if cut.store.manifest("bundles", digest))
            cut.sweep(RULES, TeacherRules())
        assert {name for name, digest in cut.digests.items() if cut.loads(digest)} == want


THREE = [("bootstrap", "a", None), ("promoted", "b", "a"), ("promoted", "c", "b"), ("promoted", "d", "c")]


def test_each_bundle_stays_for_its_first_reason() -> None:
    entries = history([*THREE, ("rolled_back", "e", "d"), ("rejected", "f", "d")])

    found = retained(entries, RetentionRules(releases=1, days=0), TeacherRules(max_age_days=15), LATER)

    assert found == {"d": "production", "c": "can be gone back to"}
    young = retained(entries, RetentionRules(releases=1, days=1), TeacherRules(max_age_days=15), START + timedelta(hours=6))
    assert young["f"] == "decided about, or served, within 1 days"
    older = retained(entries, RetentionRules(releases=1, days=0), TeacherRules(max_age_days=35), LATER)
    assert older == {**found, "b": "may teach the next model", "a": "may teach the next model"}


def test_the_teacher_of_production_stays_although_it_can_teach_no_more() -> None:
    entries = history([*THREE, ("promoted", "e", "a")])

    found = retained(entries, RetentionRules(releases=1, days=0), TeacherRules(max_age_days=1), LATER)

    assert found == {"e": "production", "d": "can be gone back to", "a": "taught production"}


def test_a_run_at_work_keeps_what_it_made_and_what_it_learns_from() -> None:
    entries = history(THREE)
    at_work = Trace("run-9", None, frozenset({("datasets", "new"), ("models", "m")}), needed=frozenset({"a"}))
    over = Trace("run-1", START, frozenset({("datasets", "old"), ("datasets", "new"), ("bundles", "a")}))
    newest = Trace("run-4", START + timedelta(days=2), frozenset({("datasets", "last")}))

    found = plan_sweep(entries, {"d": "production"}, [at_work, over, newest], RULES, LATER)

    assert found.kept == {"d": "production", "a": "run run-9 needs it"}
    assert found.folders == (("bundles", "b"), ("bundles", "c"), ("datasets", "old"))
    assert found.runs == ("run-1",)


def test_a_run_that_released_what_stays_keeps_its_record_and_its_splits() -> None:
    released = Trace("run-4", START, frozenset({("datasets", "log"), ("datasets", "eval")}), frozenset({("datasets", "eval")}))
    newest = Trace("run-5", START + timedelta(days=2))

    found = plan_sweep(history(THREE), {"d": "production"}, [released, newest], RULES, LATER)

    assert ("datasets", "log") in found.folders
    assert ("datasets", "eval") not in found.folders
    assert found.runs == ()


def test_it_stops_where_the_ledger_grew_meanwhile() -> None:
    with place(THREE) as made:
        kept = retained(made.entries, RetentionRules(releases=1, days=0), TeacherRules(max_age_days=1), LATER)
        sweep = plan_sweep(made.entries, kept, [], RULES, LATER)
        assert sweep.folders
        with pytest.raises(RetryableError, match="the ledger grew after entry 3; 0 folders removed"):
            carry_out(made.ledger, 3, sweep)
        assert all(made.loads(digest) for digest in made.digests.values())
