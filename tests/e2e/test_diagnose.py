"""`tidewheel diagnose` on a home whose production is at fault since its release, and the commands of docs/diagnose.md."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.command import KUAIRAND, QUICKSTART, ROOT, SMALL, Ended, settings, tidewheel
from tests.e2e.test_new_project import fenced_commands
from tidewheel.contracts.diagnosis import Cause, CauseKind, Diagnosis, Finding

pytestmark = pytest.mark.slow

SINCE = "start: 2026-01-14, end: 2026-01-19"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a first release, and no day served by it yet."""
    home = tmp_path_factory.mktemp("diagnose") / "home"
    ended = tidewheel("run", "--recipe", QUICKSTART, *settings(*SMALL), "--home", home, "--json")
    assert ended.code == 0, ended.err
    assert ended.document["outcome"] == "bootstrap"
    return home


@pytest.fixture
def home(released: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released, tmp_path / "home"))


def diagnose(home: Path, *more: str, json: bool = True) -> Ended:
    words = ("diagnose", "--recipe", QUICKSTART, *settings(*SMALL), *more)
    return tidewheel(*words, "--home", home, *(["--json"] if json else []))


def found(ended: Ended) -> Diagnosis:
    assert ended.code == 0, ended.err
    return Diagnosis.parse(ended.out, "diagnose")


def at_fault(home: Path, fault: str) -> Diagnosis:
    return found(diagnose(home, *settings(f"source.faults=[{{{fault}, {SINCE}}}]")))


def key(cause: Cause) -> tuple[CauseKind, tuple[str, ...], str]:
    return cause.kind, cause.features, cause.detail


@pytest.fixture(scope="module")
def drifting(released: Path, tmp_path_factory: pytest.TempPathFactory) -> set[tuple[CauseKind, tuple[str, ...], str]]:
    """What moves without any fault: after a first release counters follow the new ranking, and calibration with them."""
    home = Path(shutil.copytree(released, tmp_path_factory.mktemp("healthy") / "home"))
    return {key(cause) for cause in found(diagnose(home)).causes}


def test_a_healthy_production_serves_what_the_bundle_says(home: Path) -> None:
    healthy = found(diagnose(home))

    assert healthy.joined.joined == healthy.joined.of_bundle > 10_000
    assert healthy.joined.impressions > healthy.joined.of_bundle  # the first two days were ranked before the release
    assert healthy.joined.served_differently == 0.0
    assert not [cause for cause in healthy.causes if cause.kind.is_of_serving]
    assert healthy.rescored is not None
    assert healthy.rescored == healthy.served
    assert list((home / "runs").glob("*diagnose*")) == []


@pytest.mark.parametrize(
    ("fault", "kind", "features"),
    [
        ("kind: missing_feature, feature: item_click_rate, share: 0.3", CauseKind.COVERAGE, {"item_click_rate"}),
        ("kind: scaled_feature, feature: user_click_rate", CauseKind.VALUE_DRIFT, {"user_click_rate"}),
        (
            "kind: stale_features, features: [item_click_rate, item_long_view_rate], days: 3",
            CauseKind.STALENESS,
            {"item_click_rate", "item_long_view_rate"},
        ),
        ("kind: broken_calibrator, slope: 0.8, shift: 0.3", CauseKind.CALIBRATION, set()),
        ("kind: traffic_shift, surface: search, share: 0.7", CauseKind.TRAFFIC_MIX, {"query_category", "surface"}),
        ("kind: layout_change, power: 1.0", CauseKind.POSITION, set()),
    ],
    ids=["coverage", "value drift", "staleness", "calibration", "traffic mix", "position"],
)
def test_what_is_wrong_with_production_is_named_first(
    home: Path, drifting: set[object], fault: str, kind: CauseKind, features: set[str]
) -> None:
    """Of all that does not move in a healthy home."""
    diagnosis = at_fault(home, fault)

    first = next(cause for cause in diagnosis.causes if key(cause) not in drifting)
    assert (diagnosis.finding, first.kind) == (Finding.EXPLAINED, kind)
    assert set(first.features) <= features
    assert bool(first.features) == bool(features)
    assert diagnosis.served is not None
    assert diagnosis.offline is not None
    gap = float(diagnosis.served.log_loss.value or 0) - float(diagnosis.offline.log_loss.value or 0)
    assert sum(float(term.log_loss.value or 0) for term in diagnosis.terms) == pytest.approx(gap, abs=1e-9)


def test_features_that_the_server_wrote_down_are_compared_and_not_guessed(home: Path) -> None:
    fault = "kind: missing_feature, feature: item_click_rate"
    (guessed,) = (cause for cause in at_fault(home, fault).causes if cause.kind.is_of_serving)
    assert guessed.features == ("item_click_rate",)
    for path in (home / "world" / "quickstart" / "backend").glob("date=*/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("item_click_rate", pa.nulls(table.num_rows, pa.float64())), path)

    (first,) = (cause for cause in at_fault(home, fault).causes if cause.kind.is_of_serving)

    assert (first.kind, first.features, first.detail) == (CauseKind.COVERAGE, ("item_click_rate",), "null")
    assert first.rows_share > 0.9


def test_a_recorded_hybrid_log_is_diagnosed_as_the_worlds(home: Path) -> None:
    of_the_world = at_fault(home, "kind: missing_feature, feature: item_category, share: 0.4")
    source = "source={kind: hybrid, labels: [click, long_view, like]}"

    recorded = found(
        tidewheel(
            *("diagnose", "--recipe", QUICKSTART, "--set", source, "--data", home / "world" / "quickstart"),
            *("--home", home, "--json"),
        )
    )

    assert ("item_category",) in [cause.features for cause in recorded.causes]
    assert recorded == of_the_world


def test_people_get_sentences_and_two_tables(home: Path) -> None:
    ended = diagnose(home, *settings(f"source.faults=[{{kind: broken_calibrator, shift: 0.5, {SINCE}}}]"), json=False)

    assert ended.code == 0, ended.err
    assert "explained: another calibrator answers" in ended.out
    assert "held out" in ended.out
    assert "served otherwise" in ended.out


# --- what cannot be diagnosed -------------------------------------------------------------------------------------------


def refused(ended: Ended, code: int, *words: str) -> None:
    assert ended.code == code, ended.err
    assert [word for word in words if word not in ended.last_line] == []
    assert "a bug" not in ended.err


def test_a_log_without_scores_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    refused(
        tidewheel("diagnose", "--recipe", KUAIRAND, "--data", tmp_path / "log", "--home", home),
        2,
        "kuairand",
        "world or hybrid",
    )


def test_without_a_release_there_is_nothing_to_diagnose(tmp_path: Path) -> None:
    tmp_path.joinpath("home").mkdir()
    refused(diagnose(tmp_path / "home"), 2, "released nothing")


def test_days_that_another_served_are_named(home: Path) -> None:
    ended = diagnose(home, "--window-end", "2026-01-12", "--days", "3")
    refused(ended, 2, "served none of the", "no bundle")


def test_an_unknown_label_is_refused(home: Path) -> None:
    refused(diagnose(home, "--label", "buy"), 2, "buy", "click")


def test_a_damaged_reference_is_named(home: Path) -> None:
    damaged = 0
    for manifest in (home / "store" / "datasets").glob("*/manifest.json"):
        if '"kind": "eval"' in manifest.read_text():
            for part in manifest.parent.glob("*.parquet"):
                part.write_bytes(part.read_bytes()[:100])
                damaged += 1
    assert damaged
    refused(diagnose(home), 3, "store/datasets")


def test_a_log_whose_servers_wrote_no_scores_is_named(home: Path) -> None:
    found(diagnose(home))
    for path in (home / "world" / "quickstart" / "backend").glob("date=*/*.parquet"):
        table = pq.read_table(path)
        at = table.column_names.index("score_click")
        pq.write_table(table.set_column(at, "score_click", pa.nulls(table.num_rows, pa.float64())), path)
    refused(diagnose(home), 3, "score_click", "tidewheel serve --log")


def test_the_documented_commands_run(tmp_path: Path) -> None:
    commands = [shlex.split(command) for command in fenced_commands(ROOT / "docs" / "diagnose.md")]
    assert [words[:2] for words in commands] == [["tidewheel", "run"], ["tidewheel", "diagnose"], ["tidewheel", "diagnose"]]

    ended = [tidewheel(*words[1:], home=tmp_path / "home", cwd=ROOT) for words in commands]

    assert [one.code for one in ended] == [0, 0, 0], [one.err for one in ended]
    assert found(ended[-1]).causes[0].kind is CauseKind.COVERAGE
