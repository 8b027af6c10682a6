"""Distillation: fewer features for the student, calibrators from their own rows, and a budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import TinyRun
from tidewheel.contracts.learning import DistillConfig, OptimizerConfig
from tidewheel.contracts.schema import feature_digest, label_column
from tidewheel.errors import ConfigError
from tidewheel.ranker import GraphScorer, OpenBundle, Scorer, columns_of, load_bundle
from tidewheel.ranker.bundle import BUNDLES
from tidewheel.ranker.calibration import Calibrators
from tidewheel.store import Store
from tidewheel.training.distill import Distilled, distill

OPTIMIZER = OptimizerConfig(epochs=2, batch_size=256, learning_rate=0.01)
DROPPED = ("user_id", "surface", "user_click_rate")


def distilled(run: TinyRun, store: Store, calibration: Path | None = None, **changed: object) -> Distilled:
    config = DistillConfig.model_validate({"optimizer": OPTIMIZER, **changed})
    return distill(
        run.ranker_folder,
        run.ranker,
        run.train_dir,
        calibration or run.calibration_dir,
        config,
        run.recipe.labels,
        run.profile,
        run.bundle.manifest.lineage,
        store,
        "quickstart",
        store.staging("bundle"),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(str(tmp_path_factory.mktemp("distill") / "store"))


@pytest.fixture(scope="module")
def plain(tiny_run: TinyRun, store: Store) -> OpenBundle:
    return load_bundle(store, distilled(tiny_run, store).digest)


def calibration_with(run: TinyRun, folder: Path, **columns: np.ndarray) -> Path:
    """The calibration rows with some columns replaced."""
    table = pq.read_table(run.calibration_dir)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    folder.mkdir()
    pq.write_table(table, folder / "part-0.parquet")
    return folder


def file_of(bundle: OpenBundle, part: str) -> bytes:
    return (bundle.folder / getattr(bundle.model(), part)).read_bytes()


def test_a_student_without_some_features_is_published_with_the_others_alone(tiny_run: TinyRun, store: Store):
    bundle = load_bundle(store, distilled(tiny_run, store, without_features=DROPPED).digest)
    kept = tuple(feature for feature in tiny_run.recipe.features if feature.name not in DROPPED)
    assert bundle.manifest.features == bundle.encoders().features == kept
    assert bundle.manifest.feature_digest == feature_digest(kept) != tiny_run.bundle.manifest.feature_digest


def test_a_student_does_not_look_at_what_it_was_denied(tiny_run: TinyRun, store: Store):
    bundle = load_bundle(store, distilled(tiny_run, store, without_features=DROPPED).digest)
    table = pq.read_table(tiny_run.calibration_dir)
    scores = Scorer(bundle).score(columns_of(table.drop_columns(list(DROPPED)), bundle.manifest.features))
    assert np.std(scores["click"]) > 0.01


def test_a_student_without_a_feature_comes_close_to_the_ranker_that_teaches_it_with_all(tiny_run: TinyRun, store: Store):
    bundle = load_bundle(store, distilled(tiny_run, store, without_features=["user_id"], soft_weight=1.0).digest)
    table = pq.read_table(tiny_run.train_dir)
    ranker = GraphScorer(tiny_run.ranker_folder, tiny_run.ranker).score(columns_of(table, tiny_run.ranker.features))
    student = Scorer(bundle).logits(columns_of(table, bundle.manifest.features))
    predicted = 1 / (1 + np.exp(-student["click"]))
    assert np.corrcoef(predicted, ranker["click"])[0, 1] > 0.7
    assert predicted.mean() == pytest.approx(ranker["click"].mean(), abs=0.03)


def test_labels_of_the_calibration_rows_move_calibrators_and_nothing_of_the_student(
    tiny_run: TinyRun, store: Store, plain: OpenBundle, tmp_path: Path
):
    flipped = 1 - pq.read_table(tiny_run.calibration_dir)[label_column("click")].to_numpy()
    moved = calibration_with(tiny_run, tmp_path / "moved", **{label_column("click"): flipped})
    other = load_bundle(store, distilled(tiny_run, store, moved).digest)
    for part in ("weights", "uncalibrated_graph", "encoders"):
        assert file_of(other, part) == file_of(plain, part)
    for part in ("calibrators", "graph"):
        assert file_of(other, part) != file_of(plain, part)


def test_labels_of_the_training_rows_do_not_reach_the_calibrators(tiny_run: TinyRun, store: Store, tmp_path: Path):
    """With soft labels alone the student does not see training labels; nor do the calibrators, so nothing moves."""
    train = tmp_path / "train"
    train.mkdir()
    table = pq.read_table(tiny_run.train_dir)
    shuffled = np.random.default_rng(0).permutation(
        table[label_column("click")].to_numpy()
    )  # the rate stays: so does the start
    weights = pa.array(np.ones(table.num_rows))
    even = table.set_column(table.column_names.index("weight"), "weight", weights)
    made = []
    for name, click in (("logged", table[label_column("click")].to_numpy()), ("shuffled", shuffled)):
        (train / name).mkdir()
        at = even.column_names.index(label_column("click"))
        pq.write_table(even.set_column(at, label_column("click"), pa.array(click)), train / name / "part-0.parquet")
        run = TinyRun(**{**vars(tiny_run), "train_dir": train / name})
        made.append(load_bundle(store, distilled(run, store, soft_weight=1.0).digest))
    assert file_of(made[0], "weights") == file_of(made[1], "weights")
    assert file_of(made[0], "calibrators") == file_of(made[1], "calibrators")


def test_labels_have_the_calibrators_of_the_recipe_and_slices_those_of_their_values(tiny_run: TinyRun, store: Store):
    made = distilled(
        tiny_run,
        store,
        calibrator="histogram",
        calibrators={"click": "isotonic", "like": "platt"},
        calibration_slice="surface",
        min_slice_rows=50,
        without_features=["user_id"],
    )
    bundle = load_bundle(store, made.digest)
    by_label = Calibrators.read(bundle.folder / bundle.model().calibrators).by_label
    assert {label: found.kind for label, found in by_label.items()} == {
        "click": "isotonic",
        "long_view": "histogram",
        "like": "platt",
    }
    histogram = by_label["long_view"]
    names = [feature.name for feature in bundle.encoders().categorical]
    assert names[histogram.column] == histogram.slice == "surface"
    assert sorted(histogram.by_id) == [1, 2, 3]  # a, b and c of the synthetic rows


def test_the_served_graph_calibrates_each_slice_as_numpy_does(tiny_run: TinyRun, store: Store):
    made = distilled(tiny_run, store, calibrator="histogram", calibration_slice="surface", min_slice_rows=50)
    bundle = load_bundle(store, made.digest)
    scorer = Scorer(bundle)
    table = pq.read_table(tiny_run.train_dir)
    columns = columns_of(table, bundle.manifest.features)
    surfaces = np.array(["a", "b", "c", "never seen"], dtype=object)
    columns["surface"] = surfaces[np.arange(table.num_rows) % 4]
    slices = scorer.encoders.encode(columns).ids
    served, logits = scorer.score(columns), scorer.logits(columns)
    for label, found in Calibrators.read(bundle.folder / bundle.model().calibrators).by_label.items():
        np.testing.assert_allclose(served[label], found.apply(logits[label], slices[:, found.column]), atol=1e-6)


def test_calibration_rows_of_one_class_leave_finite_probabilities(tiny_run: TinyRun, store: Store, tmp_path: Path):
    nobody = np.zeros(pq.read_metadata(next(tiny_run.calibration_dir.glob("*.parquet"))).num_rows, dtype=np.int8)
    moved = calibration_with(tiny_run, tmp_path / "moved", **{label_column("like"): nobody})
    made = distilled(tiny_run, store, moved, calibrator="histogram", calibration_slice="surface", min_slice_rows=50)
    scorer = Scorer(load_bundle(store, made.digest))
    columns = columns_of(pq.read_table(tiny_run.calibration_dir), tiny_run.recipe.features)
    np.testing.assert_allclose(scorer.score(columns)["like"], 1 / (1 + np.exp(-scorer.logits(columns)["like"])), atol=1e-6)


def test_a_student_over_its_budget_is_not_published(tiny_run: TinyRun, tmp_path: Path):
    empty = Store.open(str(tmp_path / "store"))
    with pytest.raises(ConfigError, match=r"us a candidate .*; distill.max_microseconds_per_candidate is 0\.001"):
        distilled(tiny_run, empty, max_microseconds_per_candidate=0.001)
    assert not list((tmp_path / "store").rglob(f"{BUNDLES}/*/manifest.json"))


def test_what_a_student_costs_is_measured_and_does_not_change_its_bundle(tiny_run: TinyRun, store: Store, plain: OpenBundle):
    made = distilled(tiny_run, store, max_microseconds_per_candidate=1e6)
    assert made.digest == plain.digest
    assert made.latency.candidates == 500
