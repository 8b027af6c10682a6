import datetime as dt
import re

import pytest

from tests.unit.evaluation.report.test_run_page import EVIL, Document
from tidewheel.contracts.evidence import Comparison, DataReport, Profile, WindowRecord
from tidewheel.contracts.verdict import Phase, Reason, Severity, combine
from tidewheel.contracts.window import Window
from tidewheel.evaluation.report.data_page import bin_names, render_data

END = dt.datetime(2026, 1, 12, tzinfo=dt.UTC)


def profile(tab=(0.7, 0.2, 0.1, 0.0)):
    return Profile(
        numeric_edges={"price": (1.5, 20.0)},
        categorical_values={"tab": ("main", EVIL)},
        shares={"price": (0.5, 0.25, 0.25, 0.0), "tab": tab},
        label_rates={"click": 0.25},
        rows=1234,
        effective_rows=987.6,
        weight_sum=4936.0,
    )


def window(days_ago=0, rate=0.25):
    end = END - dt.timedelta(days=days_ago)
    return WindowRecord(
        window=Window.ending(end, 7),
        rows=1234,
        weight_sum=4936.0,
        label_rates={"click": rate},
        label_precision={"click": 800.0},
        newest=end,
    )


REASONS = (
    Reason(check="expect train tab not be null", phase=Phase.SUCCESSFUL, message="train tab: 0 of 1234 values null"),
    Reason(check="drift tab", phase=Phase.FAILED, message="drift tab: psi 0.4000 > 0.25 beyond chance", value=0.4, limit=0.25),
    Reason(check="calibration click", phase=Phase.FAILED, message="calibration click: off", severity=Severity.WARNING),
)
COMPARISONS = (
    Comparison(
        check="drift tab",
        subject="tab",
        statistic="psi",
        value=0.4,
        lower=0.31,
        upper=0.52,
        limit=0.25,
        effective_rows=700,
        baseline_rows=650,
    ),
    Comparison(
        check="calibration click",
        subject="click",
        statistic="predicted/actual - 1",
        value=0.5,
        lower=0.3,
        upper=0.7,
        limit=0.25,
        effective_rows=300,
    ),
    Comparison(check="drift gone", subject="gone", statistic="psi", value=None, limit=0.25),
)


def rejected():
    return DataReport(
        verdict=combine(REASONS),
        window=window(),
        trailing=(window(7, rate=0.2625),),
        comparisons=COMPARISONS,
        profile=profile(),
        baseline=profile((0.3, 0.5, 0.1, 0.1)),
    )


@pytest.fixture(scope="module")
def text():
    return render_data("run-1", rejected())


def test_the_page_is_whole_and_reaches_for_nothing_but_its_own_report(text):
    document = Document(text)
    assert document.addresses == ["report.html"]
    assert not document.tags & {"script", "link", "img", "iframe"}
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "<script>alert" not in text
    assert 'name="viewport"' in text


def test_the_verdict_stands_before_all_numbers(text):
    said = Document(text).text
    places = [said.index(words) for words in ("Data rejected", "What did not pass", "Drift from", "Histograms", "All checks")]
    assert places == sorted(places)


def test_every_number_is_there(text):
    said = Document(text).text
    assert "psi 0.4000 > 0.25 beyond chance" in said
    assert "[0.3100, 0.5200]" in said
    assert "1,234" in said
    assert "988" in said  # effective rows
    assert "0.2625" in said  # the rate of the window before
    assert "70.00%" in said  # bins: this window
    assert "30.00%" in said  # and production
    assert "split train: 1 passed" in said


def test_a_warning_is_called_one(text):
    assert "⚠ Warning" in Document(text).text


def test_accepted_data_without_a_production_has_histograms_and_no_drift():
    found = DataReport(verdict=combine(REASONS[:1]), window=window(), profile=profile())
    said = Document(render_data("run-1", found)).text
    assert "Data accepted" in said
    assert "1 check passed" in said
    assert "Histograms" in said
    assert "Drift from" not in said
    assert "What did not pass" not in said


def test_bins_are_named_by_what_they_hold():
    assert bin_names(profile(), "price") == ["below 1.5", "[1.5, 20)", "from 20", "null"]
    assert bin_names(profile(), "tab") == ["main", EVIL, "all others", "null"]
