"""A store in which production, an equal and a harmful candidate wait to be compared on held-out requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import WINDOW, TinyRun
from tidewheel.contracts.bundle import Lineage
from tidewheel.contracts.dataset import DATASETS, DatasetManifest
from tidewheel.contracts.evidence import Baseline
from tidewheel.contracts.learning import DistillConfig, OptimizerConfig, TrainConfig
from tidewheel.contracts.network import NetworkConfig
from tidewheel.contracts.offer import CanaryOffer
from tidewheel.contracts.recipe import CanaryStep, KuaiRandSource, Recipe
from tidewheel.contracts.schema import WEIGHT, feature_columns, label_column
from tidewheel.contracts.steps import DeployPart, parts
from tidewheel.contracts.target import Target
from tidewheel.contracts.teacher import TeacherChoice
from tidewheel.contracts.verdict import Phase, Verdict
from tidewheel.ranker import load_bundle
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.release import release
from tidewheel.store import Store
from tidewheel.training.distill import distill
from tidewheel.training.train import train

STEPS = (
    CanaryStep(share=0.2, min_requests=60, max_requests=600, max_seconds=10**9),
    CanaryStep(share=0.5, min_requests=60, max_requests=600, max_seconds=10**9),
)
OPTIMIZER = OptimizerConfig(epochs=4, batch_size=256, learning_rate=0.01)
NETWORK = NetworkConfig(embedding_dim=4, cross_layers=1, cross_rank=8, experts=2, hidden=(16,))


@dataclass(frozen=True)
class Setting:
    """What was made: digests of three bundles in the store, and the held-out rows."""

    store: Store
    part: DeployPart
    production: str
    equal: str
    harmful: str
    evaluation: DatasetManifest

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, self.part.recipe)

    def bootstrap(self, target: Target | None = None) -> None:
        """Release production: the first entry of the ledger."""
        release(
            self.ledger,
            None,
            bundle=self.production,
            manifest=load_bundle(self.store, self.production).manifest,
            verdict=Verdict(phase=Phase.SUCCESSFUL),
            is_canaried=True,
            seen_number=0,
            run_id="first",
            target=target,
        )

    def baseline(self) -> Baseline:
        """What a run that begins now pins."""
        teaching = TeacherChoice(reason="of no matter here")
        return Baseline(production=self.ledger.production(), teaching=teaching, ledger_number=self.ledger.last_number())

    def offer(self, candidate: str, run_id: str = "second") -> CanaryOffer:
        return CanaryOffer(
            part=self.part,
            run_id=run_id,
            window_end=WINDOW.end,
            candidate=candidate,
            baseline=self.baseline(),
            evaluation=self.evaluation,
            reason="a test",
        )


def setting(store: Store, run: TinyRun, make_rows: Callable[[Recipe, int, int], pa.Table], target: Target) -> Setting:
    """Fill an empty store. The harmful candidate learned from labels that say the opposite."""
    recipe = run.recipe.model_copy(update={"source": KuaiRandSource(kind="kuairand", path="somewhere")})
    deploy = recipe.deploy.model_copy(
        update={
            "target": target,
            "steps": STEPS,
            "holdout": None,
            "batch_requests": 60,
            "max_latency_ratio": 20.0,
            "max_error_rate": 0.05,
        }
    )
    part = parts(recipe.model_copy(update={"deploy": deploy}))["deploy"]
    assert isinstance(part, DeployPart)
    work = store.staging("setting")
    return Setting(
        store=store,
        part=part,
        production=_bundle(store, run, work / "production", 4, is_inverted=False),
        equal=_bundle(store, run, work / "equal", 5, is_inverted=False),
        harmful=_bundle(store, run, work / "harmful", 4, is_inverted=True),
        evaluation=_held_out(store, recipe, make_rows(recipe, 12_000, 3)),
    )


def _bundle(store: Store, run: TinyRun, work: Path, epochs: int, is_inverted: bool) -> str:
    """A bundle of the store, trained for a few steps; `epochs` of its distillation make its bytes its own."""
    folders = {"train": run.train_dir, "calibration": run.calibration_dir}
    ranker, ranker_folder = run.ranker, run.ranker_folder
    if is_inverted:
        folders = {name: _inverted(folder, work / name, run.recipe) for name, folder in folders.items()}
        ranker_folder = work / "ranker"
        ranker_folder.mkdir(parents=True)
        config = TrainConfig(network=NETWORK, optimizer=OPTIMIZER)
        ranker = train(folders["train"], run.recipe.features, run.recipe.labels, config, None, ranker_folder)
    lineage = Lineage(
        run_id=work.name,
        recipe=run.recipe.name,
        recipe_digest=run.recipe.digest,
        window=WINDOW,
        datasets={},
        teacher=None,
        generation=0,
    )
    digest, _, _ = distill(
        ranker_folder,
        ranker,
        folders["train"],
        folders["calibration"],
        DistillConfig(optimizer=OPTIMIZER.model_copy(update={"epochs": epochs})),
        run.recipe.labels,
        run.profile,
        lineage,
        store,
        run.recipe.name,
        store.staging("bundle"),
    )
    return digest


def _inverted(folder: Path, to: Path, recipe: Recipe) -> Path:
    table = pq.read_table(folder)
    for label in recipe.label_names:
        name = label_column(label)
        values = pa.array(1 - table[name].to_numpy(), type=table[name].type)
        table = table.set_column(table.column_names.index(name), name, values)
    to.mkdir(parents=True)
    pq.write_table(table, to / "part-0.parquet")
    return to


def _held_out(store: Store, recipe: Recipe, rows: pa.Table) -> DatasetManifest:
    """The rows as requests of six candidates each, a second apart, published."""
    slate = 6
    count = len(rows) // slate * slate
    rows = rows.slice(0, count)
    first = np.repeat(np.arange(0, count, slate), slate)
    users = rows["user_id"].to_numpy()[first] + 60 * (first // slate)  # one request each: arms are judged by their users
    times = np.datetime64(datetime(2026, 1, 12), "us") + first.astype("timedelta64[s]").astype("timedelta64[us]")
    known = {
        "request_id": pa.array([f"r{at:06d}" for at in first]),
        "user_id": pa.array(users),
        "event_time": pa.array(times, type=pa.timestamp("us", tz="UTC")),
    }
    if "item_id" not in rows.column_names:
        known["item_id"] = pa.array(np.arange(count) % 500)
    for name, values in known.items():
        at = rows.column_names.index(name) if name in rows.column_names else None
        rows = rows.append_column(name, values) if at is None else rows.set_column(at, name, values)
    folder = store.staging(DATASETS)
    pq.write_table(rows, folder / "part-0.parquet")
    manifest = DatasetManifest(
        kind="eval",
        window=WINDOW,
        rows=count,
        weight_sum=float(rows[WEIGHT].to_numpy().sum()) if WEIGHT in rows.column_names else float(count),
        features=recipe.features,
        labels=recipe.label_names,
    )
    assert set(feature_columns(recipe.features)) <= set(rows.column_names)
    return store.publish(DATASETS, folder, manifest)[1]
