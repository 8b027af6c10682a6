"""`tidewheel history`: every release decision, or what was in production at a time and what it stood on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tidewheel.cli.inspect import existing_home, ledger_of
from tidewheel.cli.output import STYLES, emit, plain, short, table
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.ledger import LedgerEntry
from tidewheel.contracts.past import Event, ServedThen, served_then
from tidewheel.contracts.report import Outcome, RunReport
from tidewheel.contracts.window import iso, parse_time
from tidewheel.errors import ConfigError
from tidewheel.registry.removed import manifest_of
from tidewheel.steps.records import report_of
from tidewheel.store.home import Home
from tidewheel.store.store import Store


def history(at: str, name: str, home: str, as_json: bool) -> None:
    """Every release decision of a recipe, from its ledger; with `at`, what served then and what it stood on."""
    place = existing_home(home)
    ledger = ledger_of(place, name)
    entries = ledger.entries()
    if at:
        found = with_records(served_then(entries, ledger.recipe, _moment(at)), place, ledger.store)
        emit(found, as_json, lambda: _show(found))
        return
    emit([entry.model_dump(mode="json", by_alias=True) for entry in entries], as_json, lambda: _history(entries))


def with_records(found: ServedThen, home: Home, store: Store) -> ServedThen:
    """Beside what the ledger says: datasets from the bundle's manifest and the run, verdicts from the run's report."""
    if found.bundle is None or found.run_id is None:
        return found
    datasets, verdicts, notes = dict(found.datasets), dict(found.verdicts), list(found.notes)
    text = manifest_of(store, "bundles", found.bundle)
    if text is None:
        notes.append(f"the manifest of bundle {found.bundle[:12]} is in the store no more")
    else:
        datasets |= BundleManifest.parse(text, f"bundle {found.bundle[:12]}").lineage.datasets
    path = home.run(found.run_id) / "run.json"
    report = RunReport.read(path) if path.exists() else report_of(store, found.run_id)
    if report is None:
        notes.append(f"the record of run {found.run_id} is gone: only the verdict of deploy is known")
    else:
        datasets |= {name: data.digest for name, data in report.datasets.items()}
        verdicts = dict(report.verdicts) | verdicts
    return found.model_copy(update={"datasets": datasets, "verdicts": verdicts, "notes": tuple(notes)})


def _moment(at: str) -> datetime:
    try:
        moment = parse_time(at)
    except ValueError as error:
        raise ConfigError(f"--at {at}: expected an ISO 8601 date or time, e.g. 2026-01-12T08:00") from error
    if moment > (now := datetime.now(UTC)):
        raise ConfigError(f"--at {at}: lies ahead; expected a time until now, {iso(now)}")
    return moment


def _show(found: ServedThen) -> None:
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=True)
    if found.bundle is not None and found.began is not None:
        out.print(f"[bold]{found.bundle}[/] served {found.recipe} at {iso(found.at)}")
        out.print(f"since {_event(found.began)}")
        out.print(f"run {found.run_id}, window {plain(str(found.window))}, generation {found.generation}")
        chain = " ← ".join(short(teacher.bundle) for teacher in found.teachers)
        out.print(f"teachers: {chain} ← labels alone" if chain else "no teacher: labels alone")
        for name, digest in found.datasets.items():
            out.print(f"dataset {name} {digest}")
        for name, verdict in found.verdicts.items():
            out.print(f"{name}: {verdict.phase.value}: {plain(verdict.explain())}")
            for reason in verdict.reasons:
                if reason.phase.value != "Successful":
                    out.print(f"  {plain(reason.message)}")
        for event in found.later:
            out.print(f"later {_event(event)}")
        out.print(f"teaches nobody now: {plain(found.untrusted)}" if found.untrusted else "may teach still")
    for note in found.notes:
        out.print(f"note: {plain(note)}")


def _event(event: Event) -> str:
    return f"{iso(event.time.replace(microsecond=0))} (entry {event.number}) {plain(event.what)}"


def _history(entries: Sequence[LedgerEntry]) -> None:
    rows = [
        [
            str(entry.number),
            iso(entry.time.replace(microsecond=0)),
            _decision(entry),
            short(entry.bundle, 8),
            short(entry.production, 8),
            short(entry.teacher, 8),
            plain(entry.reason[:100]),
        ]
        for entry in entries
    ]
    table(("#", "time", "decision", "bundle", "serves", "teacher", "reason"), rows)


def _decision(entry: LedgerEntry) -> str:
    outcomes = {outcome.value: STYLES[outcome] for outcome in Outcome}
    return f"[{outcomes.get(entry.decision.value, 'yellow')}]{entry.decision.value}[/]"
