"""Diagnosis: what was served since the release, beside what the released bundle says of the same rows and of its held-out ones.

No step of a turn: `tidewheel diagnose` asks for it, and it publishes nothing but the impressions that ingest makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidewheel.contracts.dataset import DATASETS, DatasetManifest
from tidewheel.contracts.diagnosis import Diagnosis
from tidewheel.contracts.hybrid import SCORE_PREFIX
from tidewheel.contracts.ledger import Decision, LedgerEntry, production_after
from tidewheel.contracts.recipe import HybridSource, Recipe, WorldSource
from tidewheel.contracts.schema import WEIGHT, Entity, FeatureKind, FeatureSpec, feature_columns, label_column
from tidewheel.contracts.steps import IngestPart, parts
from tidewheel.contracts.window import Window
from tidewheel.errors import ConfigError, ContractError
from tidewheel.evaluation.diagnosis.diagnose import Question, diagnose
from tidewheel.evaluation.diagnosis.rows import Rows, sigmoid
from tidewheel.evaluation.diagnosis.served_features import Serving, taken
from tidewheel.logs.adapter import Days, day_of
from tidewheel.logs.served import KEY, served_candidates
from tidewheel.logs.sources import counter_names
from tidewheel.ranker.bundle import load_bundle
from tidewheel.ranker.columns import Columns, columns_of
from tidewheel.ranker.scorer import Scorer
from tidewheel.registry.ledger import Ledger
from tidewheel.steps import ingest
from tidewheel.steps.records import document
from tidewheel.steps.tables import read
from tidewheel.store.home import Home
from tidewheel.store.store import Store

LAGS = (1, 2, 3, 7)  # days by which features may be out of date and still be recognised
MAX_MIX_VALUES = 200  # of a column; ids are no mix
MICROSECONDS_A_DAY = 86_400_000_000


@dataclass(frozen=True)
class Release:
    """The decision that made the bundle production, and the run that held rows out for it."""

    bundle: str
    run_id: str

    @classmethod
    def of_production(cls, store: Store, recipe: str) -> Release:
        """Of what serves now.

        Raises:
            ConfigError: nothing was released yet.
        """
        entries = Ledger(store, recipe).entries()
        bundle = production_after(entries)
        if bundle is None:
            raise ConfigError(f"recipe {recipe}: released nothing in this home yet; start with tidewheel run")
        return cls(bundle, _released(entries, bundle).run_id)


def _released(entries: Sequence[LedgerEntry], bundle: str) -> LedgerEntry:
    """The newest entry by which a run, not a hand, released the bundle."""
    decisions = (Decision.BOOTSTRAP, Decision.PROMOTED)
    found = [entry for entry in entries if entry.bundle == bundle and entry.decision in decisions]
    if not found:
        raise ContractError(f"ledger: bundle {bundle[:12]} serves and no run released it; tidewheel history shows the entries")
    return found[-1]


def impressions_part(recipe: Recipe, days: int) -> IngestPart:
    """What ingest is asked for: the days, and those before in which their features may have been current.

    Raises:
        ConfigError: the log has no served scores.
    """
    if not isinstance(recipe.source, WorldSource | HybridSource):
        raise ConfigError(
            f"recipe {recipe.name}: source.kind {recipe.source.kind} has no served scores to diagnose; expected world or hybrid"
        )
    part = parts(recipe)["ingest"]
    assert isinstance(part, IngestPart)
    return part.model_copy(update={"window": recipe.window.model_copy(update={"days": days + max(LAGS)})})


def diagnosis(recipe: Recipe, home: Home, folder: Path, window: Window, label: str) -> Diagnosis:
    """Why production of the recipe does otherwise in the window than its evaluation said.

    Args:
        folder: of a scratch run, whose environment is set.

    Raises:
        ConfigError: the log has no served scores, there is no release, it knows no such label or served nothing in the window.
        ContractError: the log or the held-out rows are damaged.
        RejectedError: as `ingest`.
    """
    store = home.store()
    part = impressions_part(recipe, (window.end - window.start).days)
    release = Release.of_production(store, recipe.name)
    bundle = load_bundle(store, release.bundle)
    if label not in bundle.manifest.labels:
        raise ConfigError(f"label {label}: bundle {release.bundle[:12]} scores {', '.join(bundle.manifest.labels)}")
    scorer, features = Scorer(bundle, threads=2), bundle.manifest.features
    held_out = _held_out(store, release)
    made = folder / "impressions.json"
    ingest.main(part.to_json(), folder.name, window.end.isoformat(), {}, {"impressions": str(made)})
    where, _ = store.load(DATASETS, DatasetManifest.read(made).digest, DatasetManifest)
    table = pa.concat_tables(_parquet(where / "impressions"))
    inside = np.flatnonzero(_times(table) >= round(window.start.timestamp() * 1e6))
    logged = _features_that_may_be_logged(recipe, features)
    served = served_candidates(_log(recipe, home), _arrivals(recipe, window), label, logged)
    joined = _joined(table, inside, served, release.bundle, label, window)
    mix = _mix_columns(recipe, table, held_out)
    days = table.take(pa.array(joined.rows))
    columns = columns_of(days, features)

    def score(given: Columns) -> np.ndarray:
        return scorer.score(given)[label].astype(np.float64)

    serving = Serving(
        served=joined.score,
        columns=columns,
        features=features,
        score=score,
        uncalibrated=lambda given: sigmoid(scorer.logits(given)[label]),
        history=columns_of(table, features),
        past=_past(table, joined.rows),
        logged=taken(columns_of(joined.served, _present(features, logged, joined.served)), np.arange(len(joined.rows))),
    )
    question = Question(recipe.name, label, window, release.bundle, release.run_id, len(inside), joined.of_bundle)
    names = [feature.name for feature in features]
    online = _rows(days, label, score(columns), 1.0 / days["inclusion_probability"].to_numpy(), mix, names)
    offline = _rows(held_out, label, score(columns_of(held_out, features)), held_out[WEIGHT].to_numpy(), mix, names)
    return diagnose(question, online, offline, serving)


# --- offline ----------------------------------------------------------------------------------------------------------


def _held_out(store: Store, release: Release) -> pa.Table:
    """The evaluation rows of the run, and its rows in random order, which no model learned from either."""
    tables = []
    for name in ("eval", "randomized"):
        text = document(store, release.run_id, "sample", name)
        if text is None:
            raise ContractError(
                f"run {release.run_id}: its held-out rows ({name}) are not in the store {store.url}; restore it"
            )
        manifest = DatasetManifest.parse(text, f"run {release.run_id}, {name}")
        tables.append(read(*store.load(DATASETS, manifest.digest, DatasetManifest)))
    return pa.concat_tables(tables, promote_options="permissive")


# --- online -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Joined:
    """`rows` (B,) of the impressions with their served `score` (B,) and line of the log; `of_bundle` had the bundle."""

    rows: np.ndarray
    score: np.ndarray
    served: pa.Table
    of_bundle: int


def _joined(table: pa.Table, inside: np.ndarray, served: pa.Table, bundle: str, label: str, window: Window) -> _Joined:
    """Impressions of the window and what was served of them, where the bundle did."""
    keys = table.select(list(KEY)).take(pa.array(inside)).append_column("row", pa.array(inside))
    lines = served.select(list(KEY)).append_column("line", pa.array(np.arange(served.num_rows)))
    both = keys.join(lines, list(KEY), join_type="inner").sort_by("row")
    found = served.take(both["line"])
    is_ours = pc.fill_null(pc.equal(found["bundle"], bundle), False).to_numpy()
    if not is_ours.any():
        others = sorted({str(name)[:12] for name in found["bundle"].unique().to_pylist() if name is not None})
        raise ConfigError(
            f"bundle {bundle[:12]} served none of the {len(inside):,} impressions of {window}; the log names "
            f"{', '.join(others) or 'no bundle'}: choose another --window-end or --days"
        )
    has_score = is_ours & pc.is_finite(pc.fill_null(found[SCORE_PREFIX + label], float("nan"))).to_numpy()
    if not has_score.any():
        raise ContractError(
            f"{window}: none of the {int(is_ours.sum()):,} impressions that bundle {bundle[:12]} served has a "
            f"{SCORE_PREFIX}{label} in the log; expected what tidewheel serve --log writes (docs/hybrid-log.md)"
        )
    kept = pa.array(np.flatnonzero(has_score))
    rows, found = both["row"].take(kept).to_numpy(), found.take(kept)
    return _Joined(rows, found[SCORE_PREFIX + label].to_numpy(), found, int(is_ours.sum()))


def _past(table: pa.Table, rows: np.ndarray) -> dict[int, dict[Entity, np.ndarray]]:
    """Days -> entity -> (B,) a row of the table that shows the row's user or item so many days earlier, -1 without one."""
    days = _times(table) // MICROSECONDS_A_DAY
    number = days - days.min()
    width = int(number.max()) + 1
    found: dict[int, dict[Entity, np.ndarray]] = {lag: {} for lag in LAGS}
    for entity, column in ((Entity.USER, "user_id"), (Entity.ITEM, "item_id")):
        _, codes = np.unique(table[column].to_numpy(), return_inverse=True)
        seen = np.full((int(codes.max()) + 1) * width, -1, dtype=np.int64)
        seen[codes * width + number] = np.arange(table.num_rows)
        for lag in LAGS:
            then = number[rows] - lag
            found[lag][entity] = np.where(then >= 0, seen[codes[rows] * width + np.maximum(then, 0)], -1)
    return found


def _rows(
    table: pa.Table, label: str, scores: np.ndarray, weight: np.ndarray, mix: Sequence[str], features: Sequence[str]
) -> Rows:
    position = table["position"].cast(pa.float64()).to_numpy()
    return Rows(
        users=table["user_id"].to_numpy(),
        weight=np.asarray(weight, dtype=np.float64),
        labels=table[label_column(label)].to_numpy(),
        scores=scores,
        position=position,
        is_randomized=pc.fill_null(table["is_randomized"], False).to_numpy(),
        mix={name: _texts(table[name]) for name in mix},
        missing={name: pc.is_null(table[name], nan_is_null=True).to_numpy() for name in features},
    )


def _mix_columns(recipe: Recipe, *tables: pa.Table) -> list[str]:
    """The slices of the recipe, and what users and contexts are like, as far as all tables have them."""
    kinds = {
        feature.name
        for feature in recipe.active_features
        if feature.kind is FeatureKind.VOCABULARY and feature.entity in (Entity.USER, Entity.CONTEXT)
    }
    return [
        name
        for name in sorted({*recipe.evaluate.slices, *kinds})
        if all(name in table.column_names and len(table[name].unique()) <= MAX_MIX_VALUES for table in tables)
    ]


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column.cast(pa.string()), "").to_numpy().astype(str)


def _features_that_may_be_logged(recipe: Recipe, features: tuple[FeatureSpec, ...]) -> tuple[str, ...]:
    """Columns that ingest computes itself: a server's own say what it scored; the others are taken from the log anyway."""
    counted = counter_names(recipe.ingest.counters)
    return feature_columns([feature for feature in features if feature.is_sequence or feature.name in counted])


def _present(features: tuple[FeatureSpec, ...], logged: Sequence[str], table: pa.Table) -> tuple[FeatureSpec, ...]:
    return tuple(feature for feature in features if set(feature.columns) <= set(logged) & set(table.column_names))


def _times(table: pa.Table) -> np.ndarray:
    """(N,) microseconds since 1970."""
    found: np.ndarray = table["event_time"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    return found


def _parquet(folder: Path) -> list[pa.Table]:
    import pyarrow.parquet as pq

    return [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]


def _log(recipe: Recipe, home: Home) -> Path:
    return home.world(recipe.name) if isinstance(recipe.source, WorldSource) else Path(recipe.source.path)


def _arrivals(recipe: Recipe, window: Window) -> Days:
    """The partitions in which lines of the window's servings may lie."""
    last = day_of(window.end - timedelta(microseconds=1))
    return Days(day_of(window.start), last + timedelta(days=1 + recipe.ingest.max_lateness_days))
