import datetime as dt
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from tidewheel.contracts.evaluation import EvaluateConfig
from tidewheel.contracts.recipe import LabelConfig
from tidewheel.contracts.report import DatasetSummary, Outcome, RunReport, StepFailure, StepRecord
from tidewheel.contracts.rollout import ArmSummary, Signal, StepResult
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.contracts.window import Window
from tidewheel.evaluation import Figures, draw, evaluate, render

NOW = dt.datetime(2026, 1, 12, tzinfo=dt.UTC)
EVIL = "<script>alert('x')</script> & \"quoted\""
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Document(HTMLParser):
    """Checks that every element is closed and collects what could reach outside of the file."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.ids, self.text = [], set(), [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "action")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def report(**changes):
    known = {
        "run_id": "run-1",
        "recipe": "quickstart",
        "recipe_digest": "ab" * 32,
        "window": Window.ending(NOW, 7),
        "outcome": Outcome.PROMOTED,
        "reason": "the canary was Successful",
        "steps": (
            StepRecord(name="train", status="succeeded", started=NOW, seconds=12.5, overhead_seconds=2, summary="2 epochs"),
        ),
    }
    return RunReport(**(known | changes))


@pytest.fixture(scope="module")
def evaluated():
    generator, rows = np.random.default_rng(0), 1500
    truth = generator.uniform(0.05, 0.95, rows)
    table = pa.table(
        {
            "user_id": generator.integers(0, 400, rows),
            "request_id": generator.integers(0, 500, rows).astype(str),
            "weight": np.ones(rows),
            "label_click": (generator.random(rows) < truth).astype(np.int8),
            "tab": generator.choice(["main", "$x$ <b>"], rows),
        }
    )
    models = {"student": truth, "production": np.clip(truth + 0.02, 0, 1), "ranker": truth}
    config = EvaluateConfig(slices=("tab",))
    return evaluate(table, {model: {"click": scores} for model, scores in models.items()}, [LabelConfig(name="click")], config)


@pytest.fixture(scope="module")
def drawings(evaluated):
    return draw(evaluated[1])


def canary():
    arm = ArmSummary(requests=400, errors=1, users=90, latency_p50_seconds=0.003, latency_p95_seconds=None, means={})
    signals = (
        Signal(name=EVIL, phase=Phase.FAILED, message=EVIL, estimate=-0.2, lower=-0.3, upper=-0.1, limit=-0.05),
        Signal(name="one sided", phase=Phase.RUNNING, message="open", estimate=0.0, lower=None, upper=0.1, limit=0.01),
        Signal(name="nothing", phase=Phase.ERROR, message="nothing was seen"),
    )
    step = StepResult(
        number=1, share=0.05, phase=Phase.FAILED, looks=2, seconds=3.5, candidate=arm, control=None, signals=signals
    )
    return [step.model_dump(mode="json")]


def test_a_full_report_is_well_formed_and_reaches_for_nothing_outside(evaluated, drawings):
    found = evaluated[0]
    run = report(
        metrics=found.metrics,
        verdicts={"evaluate": found.verdict},
        datasets={"train": DatasetSummary(digest="cd" * 32, rows=12345, weight_sum=99.5)},
        bundle="ef" * 32,
    )
    text = render(run, drawings, canary())
    document = Document(text)
    assert {"script", "link", "img", "iframe"} & document.tags == set()
    assert all(address.startswith("#") for address in document.addresses)
    assert "@import" not in text
    assert "url(http" not in text
    assert len(document.ids) == len(set(document.ids))
    for words in ("Promoted", "the canary was Successful", "12,345", "cd" * 32, "ef" * 32, "predicted / actual", "✗ Failed"):
        assert words in document.text


def test_text_from_outside_is_shown_and_never_run(drawings):
    failure = StepFailure(kind="Bug", message=EVIL)
    step = StepRecord(name=EVIL, status="failed", started=NOW, summary=EVIL, failure=failure)
    reason = Reason(check=EVIL, phase=Phase.FAILED, message=EVIL)
    run = report(run_id=EVIL, recipe=EVIL, reason=EVIL, steps=(step,), verdicts={EVIL: combine([reason])}, teacher=EVIL)
    text = render(run, drawings, canary())
    assert "<script" not in text
    assert Document(text).text.count(EVIL) >= 8


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_words_and_a_run_that_got_nowhere_has_a_report(outcome):
    document = Document(render(report(outcome=outcome, steps=(), reason="why it ended"), {}, None))
    assert "why it ended" in document.text


def test_open_reasons_come_before_passed_ones():
    reasons = [
        Reason(check="a", phase=Phase.SUCCESSFUL, message="fine"),
        Reason(check="b", phase=Phase.FAILED, message="broken"),
    ]
    text = render(report(verdicts={"evaluate": combine(reasons)}), {}, None)
    assert text.index("broken") < text.index("fine")


def test_a_whole_canary_and_its_steps_alone_give_the_same_report():
    whole = {"steps": canary(), "requests": 800, "seconds": 3.5, "verdict": {"phase": "Failed", "reasons": []}}
    assert render(report(), {}, whole) == render(report(), {}, canary())
    assert render(report(), {}, {"steps": []}) == render(report(), {}, None)


def test_a_canary_step_with_missing_parts_is_still_shown():
    assert "Canary" in render(report(), {}, [{"number": 1, "signals": [{"name": "only a name"}]}])


def test_drawings_take_the_pages_colours_and_repeat_exactly(evaluated, drawings):
    assert set(drawings) == {"auc", "reliability", "slices"}
    for text in drawings.values():
        Document(text)
        assert text.startswith("<svg")
        assert "var(--ink)" in text
        assert "<style" not in text
    assert "tab = $x$ &lt;b&gt;" in drawings["slices"]
    assert draw(evaluated[1]) == drawings


def test_no_numbers_give_no_drawings():
    assert draw(Figures({}, {}, {})) == {}


def test_rendering_loads_neither_matplotlib_nor_pyarrow():
    program = """
import sys
from tidewheel.evaluation.report.run_page import render
assert not {"matplotlib", "pyarrow", "scipy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
