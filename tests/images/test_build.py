"""`make images`: what a builder is asked for, and how a compiled pipeline gets its digests. The builder here is a script."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from components.images import image_of
from tidewheel.errors import ConfigError

ROOT = Path(__file__).parents[2]
MANIFEST = json.dumps({"config": {"size": 1_000_000}, "layers": [{"size": 40_000_000}, {"size": 2_000_000}]}).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
INVENTORY = b'{"bomFormat": "CycloneDX"}'

# Notes what it is asked for, writes what `--output` wants, and says under which name it pushed.
BUILDER = """
import json, pathlib, sys
context, tag, *arguments = sys.argv[3:]
with open(sys.argv[1], "a") as log:
    files = sorted(path.name for path in pathlib.Path(context).iterdir())
    log.write(json.dumps({"tag": tag, "arguments": arguments, "files": files}) + "\\n")
if "--output" in arguments:
    folder = pathlib.Path(arguments[arguments.index("--output") + 1].split("dest=")[1])
    folder.mkdir(parents=True)
    (folder / "sbom.cdx.json").write_text('{"bomFormat": "CycloneDX"}')
print("step 1 of 9")
print(sys.argv[2] + "/" + tag.split("/", 1)[1])
"""


class Registry(BaseHTTPRequestHandler):
    """Shows the same manifest under every name."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(MANIFEST)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """images/build.py, which is a script; its digests and its wheel are the test's own."""
    spec = importlib.util.spec_from_file_location("images_build", ROOT / "images" / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DIGESTS", tmp_path / "digests.json")
    monkeypatch.setattr(module, "make_wheel", a_wheel)
    return module


def a_wheel(folder: Path) -> Path:
    path = folder / "tidewheel-0.1.0-py3-none-any.whl"
    path.write_bytes(b"")
    return path


def builder_of(folder: Path, registry: str) -> str:
    (folder / "builder.py").write_text(BUILDER, encoding="utf-8")
    return f"{sys.executable} {folder / 'builder.py'} {folder / 'asked.jsonl'} {registry}"


def asked(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "asked.jsonl").read_text(encoding="utf-8").splitlines()]


def build_arguments(arguments: list[str]) -> dict[str, str]:
    pairs = [value for option, value in pairwise(arguments) if option == "--build-arg"]
    return dict(pair.split("=", 1) for pair in pairs)


def test_an_image_is_built_after_its_inventory_whose_digest_it_bears(build: ModuleType, registry: str, tmp_path: Path) -> None:
    code = build.main(["python-data", "--registry", "example.org", "--builder", builder_of(tmp_path, registry)])

    inventory, image = asked(tmp_path)
    given = build_arguments(image["arguments"])
    assert code == 0
    assert (inventory["tag"], image["tag"]) == (
        "example.org/tidewheel/python-data:0.1.0-sbom",
        "example.org/tidewheel/python-data:0.1.0",
    )
    assert given["SBOM_DIGEST"] == f"sha256:{hashlib.sha256(INVENTORY).hexdigest()}"
    assert (given["SYSTEM"], given["VERSION"]) == ("java", "0.1.0")
    assert image["arguments"][-2:] == ["--target", "step"]


def test_a_context_holds_only_what_is_copied(build: ModuleType, registry: str, tmp_path: Path) -> None:
    build.main(["python-serving", "--builder", builder_of(tmp_path, registry)])

    assert [request["files"] for request in asked(tmp_path)] == [
        ["Containerfile", "constraints.txt", "kfp.txt", "requirements.txt", "tidewheel-0.1.0-py3-none-any.whl"]
    ] * 2


def test_all_images_are_built_and_printed_with_digest_and_size(
    build: ModuleType, registry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build.main(["--registry", "example.org", "--builder", builder_of(tmp_path, registry)])

    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        [f"example.org/tidewheel/{name}@{DIGEST}", "43 MB"] for name in build.images()
    ]


def test_kubeflows_sdk_is_only_where_it_runs_steps(build: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    images = build.images()

    assert build.requirements(images["python-core"], project)[1] == ["kfp==2.17.0"]
    assert build.requirements(images["python-serving"], project)[1] == []


def test_a_builder_that_fails_is_named(build: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    code = build.main(["python-core", "--builder", "false"])

    assert code == 1
    assert "python-core: false ended with 1" in capsys.readouterr().err


def test_an_unknown_image_is_refused_with_those_that_exist(build: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build.main(["python-coer"])

    assert "images.toml has no python-coer; it has python-serving, python-core" in capsys.readouterr().err


def test_building_one_image_keeps_the_digests_of_the_others(build: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "digests.json"
    build.remember("example.org:5000/tidewheel/python-core:0.1.0", "sha256:aa", file)

    build.remember("example.org:5000/tidewheel/python-data:0.1.0", "sha256:bb", file)

    assert json.loads(file.read_text(encoding="utf-8")) == {
        "example.org:5000/tidewheel/python-core:0.1.0": "example.org:5000/tidewheel/python-core@sha256:aa",
        "example.org:5000/tidewheel/python-data:0.1.0": "example.org:5000/tidewheel/python-data@sha256:bb",
    }


def test_a_compiled_pipeline_names_the_digests_that_were_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = "example.org/tidewheel/python-data@sha256:bb"
    (tmp_path / "digests.json").write_text(json.dumps({"example.org/tidewheel/python-data:0.1.0": pinned}), encoding="utf-8")
    monkeypatch.setenv("TIDEWHEEL_REGISTRY", "example.org")
    assert image_of("ingest") == "example.org/tidewheel/python-data:0.1.0"

    monkeypatch.setenv("TIDEWHEEL_IMAGE_DIGESTS", str(tmp_path / "digests.json"))

    assert image_of("ingest") == pinned
    with pytest.raises(ConfigError, match=r"pins no example.org/tidewheel/python-trainer:0.1.0; make images IMAGES="):
        image_of("train")
    monkeypatch.setenv("TIDEWHEEL_IMAGE_DIGESTS", str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match=r"none.json cannot be read"):
        image_of("ingest")
