"""`tidewheel status`: what serves, the newest runs, those at work, and, where it is asked for, what a cluster has of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from tidewheel.cli.inspect import existing_home
from tidewheel.cli.output import emit, outcome_text, plain, short, table
from tidewheel.cli.reports import Runs, newest_runs
from tidewheel.contracts.experiment import Experiment
from tidewheel.contracts.ledger import LedgerEntry, experiment_after, target_after
from tidewheel.contracts.retraining import RetrainingPhase
from tidewheel.contracts.state import ReleaseState
from tidewheel.contracts.window import iso
from tidewheel.errors import ConfigError
from tidewheel.registry.ledger import Ledger, recipes
from tidewheel.registry.state import state_of

if TYPE_CHECKING:
    from tidewheel.cluster.objects import OnCluster


def status(last: int, is_cluster: bool, namespace: str, home: str, as_json: bool) -> None:
    """What serves now, the newest runs and those at work; with `is_cluster` what the cluster has of each of them.

    Raises:
        ConfigError: there is no home, no kubeconfig, or a namespace but no cluster.
        RetryableError: the store or the cluster does not answer.
    """
    if namespace and not is_cluster:
        raise ConfigError(f"--namespace {namespace}: is of a cluster; add --cluster")
    place = existing_home(home)
    store = place.store()
    ledgers = {name: Ledger(store, name) for name in recipes(store)}
    entries = {name: ledger.entries() for name, ledger in ledgers.items()}
    states = {name: state_of(ledger) for name, ledger in ledgers.items()}
    runs = newest_runs(place, store, last)
    on_cluster = _on_cluster(runs, entries, namespace) if is_cluster else None
    told = {name: experiment for name, all_of in entries.items() if (experiment := experiment_after(all_of)) is not None}
    document = {
        "home": str(place.root),
        "production": {name: state.production if state else None for name, state in states.items()},
        "state": {name: state.model_dump(mode="json", by_alias=True) for name, state in states.items() if state},
        "experiments": {name: experiment.model_dump(mode="json") for name, experiment in told.items()},
        "runs": [
            {"run_id": r.run_id, "window": r.window.model_dump(mode="json"), "outcome": r.outcome.value} for r in runs.concluded
        ],
        "older_runs": runs.older,
        "at_work": {run_id: [step.model_dump(mode="json") for step in steps] for run_id, steps in runs.at_work.items()},
    }
    document |= {} if on_cluster is None else {"cluster": on_cluster.model_dump(mode="json")}

    def show() -> None:
        _show_serving(states, told)
        _show_runs(runs)
        if on_cluster is not None:
            _show_objects(on_cluster)

    emit(document, as_json, show)


def _on_cluster(runs: Runs, entries: Mapping[str, Sequence[LedgerEntry]], namespace: str) -> OnCluster:
    from tidewheel.cluster.objects import on_cluster

    known = [*(report.run_id for report in runs.concluded), *runs.at_work]
    targets = {name: target for name, all_of in entries.items() if (target := target_after(all_of)) is not None}
    with Console(stderr=True).status("asking the cluster"):
        return on_cluster(known, targets, namespace)


def _show_serving(states: Mapping[str, ReleaseState | None], told: Mapping[str, Experiment]) -> None:
    print("\n".join(f"production of {name}: {(s and s.production) or 'none yet'}" for name, s in states.items()))
    print("".join(f"before it: {short(s.previous)}; may teach: {_shorts(s.teachers)}\n" for s in states.values() if s), end="")
    held = [state for state in states.values() if state and state.retraining.phase is not RetrainingPhase.OPEN]
    print("".join(f"retraining of {s.recipe} is {s.retraining.phase.value}: {s.retraining.explain()}\n" for s in held))
    for name, experiment in told.items():
        share = f"{experiment.rules.share:.0%} of its users are held out on {short(experiment.previous)}"
        print(f"{share} since {iso(experiment.begins)}: tidewheel experiment --name {name} shows what came of it")


def _show_runs(runs: Runs) -> None:
    rows = [[r.run_id, plain(str(r.window)), outcome_text(r.outcome), plain(r.reason[:100])] for r in runs.concluded]
    rows += [[run_id, "", "at work", steps[-1].name if steps else "starting"] for run_id, steps in runs.at_work.items()]
    table(("run", "window", "outcome", "reason"), rows)
    if runs.older:
        print(f"{runs.older} older: --last says how many are shown")


def _show_objects(found: OnCluster) -> None:
    """Lines, not a table: names of pods are longer than a column."""
    print(f"\nin the cluster of context {found.context}:")
    for run_id, objects in found.runs.items():
        print(run_id)
        print("".join(f"  {seen.kind} {seen.name}: {seen.state}\n" for seen in objects), end="")
    print("".join(f"{seen.kind} {seen.namespace}/{seen.name}: {seen.state}\n" for seen in found.targets), end="")
    print("".join(f"not seen: {why}\n" for why in found.unseen), end="")


def _shorts(digests: Sequence[str]) -> str:
    return ", ".join(map(short, digests)) or "none"
