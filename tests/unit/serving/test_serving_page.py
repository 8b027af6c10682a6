"""docs/serving.md says what is so. Its command runs in tests/unit/cli/test_serve.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.unit.serving.wire import Wire, get, head
from tidewheel.ranker import OpenBundle
from tidewheel.serving import start_server
from tidewheel.serving.gate import MEBIBYTE, Limits
from tidewheel.serving.metrics import STAGES
from tidewheel.serving.options import parse, parser

DOCUMENT = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")


def test_the_limits_are_the_defaults() -> None:
    limits = Limits()
    said = {
        "8 MiB (events: 1 MiB)": (limits.max_body_bytes, limits.max_event_bytes) == (8 * MEBIBYTE, MEBIBYTE),
        "| 10,000 |": limits.max_candidates == 10_000,
        "| 64 requests being read": limits.max_waiting == 64,
        "| 64 MiB of bodies": limits.max_waiting_bytes == 64 * MEBIBYTE,
        "| 900 |": limits.max_connections == 900,
        "| 5 s each": limits.header_seconds == limits.body_seconds == 5,
        "| 1 s from the whole request": limits.wait_seconds == 1,
        "| 75 s without": limits.idle_seconds == 75,
        "| 64 KiB, 200 of them": limits.max_header_bytes == 64 * 1024,
        f"`{' '.join(STAGES)}`": True,
    }
    assert {text: text in DOCUMENT and is_so for text, is_so in said.items()} == dict.fromkeys(said, True)


def test_every_option_of_the_page_is_one_of_the_server() -> None:
    named = set(re.findall(r"--[a-z][a-z-]+", DOCUMENT))
    known = {option for action in parser()._actions for option in action.option_strings}
    assert named - known == set()


def test_the_arguments_of_the_manifest_are_understood() -> None:
    manifest = yaml.safe_load(DOCUMENT.partition("```yaml")[2].partition("```")[0])
    container = manifest["spec"]["predictor"]["containers"][0]
    options = parse(container["args"])
    assert (options.model_name, str(options.bundle), options.drain_seconds) == (manifest["metadata"]["name"], "/mnt/models", 10)
    assert container["ports"][0]["containerPort"] == 8080


def test_the_port_is_the_environments_where_that_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9001")
    assert parser().parse_args([]).port == 9001


def test_every_metric_of_the_page_is_there_and_every_other_is_named(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| `tidewheel_")]
    named = {name for row in rows for name in re.findall(r"`(tidewheel_[a-z_]+)", row.split("|")[1])}
    with (
        start_server(tiny_bundle.folder, log_folder=tmp_path, more=("--max-body-bytes", "10")) as server,
        Wire(server.url) as wire,
    ):
        assert wire.send(head(11) + b" " * 11).answer()[0] == 413
        text = wire.send(get("/metrics")).answer()[2].decode()
    found = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    families = {name for name in found if not name.endswith("_created")}
    assert named - families == {"tidewheel_log_"}, "it stands for all of them"
    assert {name for name in families - named if not name.startswith("tidewheel_log_")} == set()
