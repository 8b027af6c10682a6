"""Every image holds what runs in it imports, and no extra that nothing in it uses."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.images.walk import ROOT, foreign, path_of, reached, runnable

IMAGES = tomllib.loads((ROOT / "images" / "images.toml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STEPS = [*(path.parent.name for path in sorted((ROOT / "components").glob("*/component.py"))), "conclude"]

# An import in a function that only these steps call.
TAKEN_BY = {("tidewheel.ranker.bundle", "tidewheel.ranker.twins"): {"distill"}}  # publish() alone; the others open bundles
# In an extra because another distribution fails without it, and not because we import it.
UNIMPORTED = {
    "grpcio": "Spark Connect",
    "grpcio-status": "Spark Connect",
    "zstandard": "Spark Connect",
    "googleapis-common-protos": "Spark Connect",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def closure(name: str, extra: str = "") -> frozenset[str]:
    """A distribution, with one of its extras or none, and all that it requires on this machine."""
    try:
        requires = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return frozenset({normal(name)})
    found = {normal(name)}
    for wanted in map(Requirement, requires):
        is_of_extra = wanted.marker is not None and "extra" in str(wanted.marker)
        if is_of_extra != bool(extra) or (wanted.marker and not wanted.marker.evaluate({"extra": extra})):
            continue
        if normal(wanted.name) != normal(name):
            found |= with_extras(wanted)
        else:
            found |= frozenset().union(*(closure(name, other) for other in wanted.extras if other != extra))
    return frozenset(found)


def with_extras(wanted: Requirement) -> frozenset[str]:
    return closure(wanted.name).union(*(closure(wanted.name, extra) for extra in wanted.extras))


@cache
def modules_of() -> dict[str, set[str]]:
    """Distribution -> the names that it is imported by."""
    found: dict[str, set[str]] = {}
    for module, owners in importlib.metadata.packages_distributions().items():
        for owner in owners:
            found.setdefault(normal(owner), set()).add(module)
    return found


def modules(distributions: set[str]) -> set[str]:
    return set().union(*(modules_of().get(name, set()) for name in distributions))


def declared(extra: str) -> set[str]:
    """The distributions that an extra names, without what they bring."""
    return {normal(Requirement(text).name) for text in PROJECT["optional-dependencies"][extra]}


def installed(image: str) -> set[str]:
    """Distributions that an image has, but for `kfp --no-deps`."""
    texts = [*PROJECT["dependencies"]]
    for extra in IMAGES[image]["extras"]:
        texts += PROJECT["optional-dependencies"][extra]
    return set().union(*(with_extras(Requirement(text)) for text in texts))


def entries(image: str) -> list[str]:
    """The modules that are started in an image."""
    row = IMAGES[image]
    return [f"tidewheel.steps.{step}" for step in row["steps"]] + [runnable(name) for name in row.get("modules", [])]


def needed(image: str) -> dict[str, set[str]]:
    """What code that runs in an image imports of others -> the modules of ours that do."""
    closed = frozenset(edge for edge, steps in TAKEN_BY.items() if not steps & set(IMAGES[image]["steps"]))
    found: dict[str, set[str]] = {}
    for module in reached(entries(image), closed):
        for name in foreign(module):
            found.setdefault(name, set()).add(module)
    return found


def test_every_step_runs_in_exactly_one_image() -> None:
    steps = sorted(step for image in IMAGES.values() for step in image["steps"])

    assert steps == sorted(STEPS)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_what_is_imported_in_it(image: str) -> None:
    available = modules(installed(image))
    missing = {name: sorted(users) for name, users in needed(image).items() if name not in available}

    assert missing == {}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_no_extra_that_nothing_in_it_uses(image: str) -> None:
    extras = IMAGES[image]["extras"]
    always = {normal(Requirement(text).name) for text in PROJECT["dependencies"]}
    unused = []
    for extra in extras:
        others = always.union(*(declared(other) for other in extras if other != extra))
        if not modules(declared(extra) - others) & set(needed(image)):
            unused.append(extra)

    assert unused == []


@pytest.mark.parametrize("extra", sorted({extra for image in IMAGES.values() for extra in image["extras"]}))
def test_every_requirement_of_an_extra_is_imported_in_one_of_its_images(extra: str) -> None:
    imported = {name for image, row in IMAGES.items() if extra in row["extras"] for name in needed(image)}
    unused = [name for name in declared(extra) - set(UNIMPORTED) if not modules({name}) & imported]

    assert unused == []


@pytest.mark.parametrize(("edge", "steps"), TAKEN_BY.items())
def test_an_import_that_only_some_steps_take_is_still_there(edge: tuple[str, str], steps: set[str]) -> None:
    user, used = edge

    assert used in reached([user])
    assert steps <= set(STEPS)


# A finder in front of all others hides what the image does not have; names are joined by commas.
BLINKERS = """
import sys
class Blinkers:
    hidden = set(sys.argv[1].split(","))
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.hidden:
            raise ModuleNotFoundError(f"No module named {name!r} in the image", name=name)
sys.meta_path.insert(0, Blinkers())
"""


def run_with_only(distributions: set[str], code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code that cannot import distributions other than these."""
    hidden = modules(set(modules_of()) - distributions) - modules(distributions) - {"tidewheel"}
    # What an editable install leaves is not a package that could be in an image.
    hidden = {name for name in hidden if not name.startswith(("_", "components", "pipelines"))}
    return subprocess.run(
        [sys.executable, "-c", BLINKERS + code, ",".join(sorted(hidden))],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "HOME": "/nonexistent", **environment},
        cwd=Path("/"),
        check=False,
    )


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_started_in_an_image_imports_with_what_it_has(image: str) -> None:
    starts = [name.removesuffix(".__main__") for name in entries(image)]

    found = run_with_only(installed(image), f"import tidewheel.cli, {', '.join(starts)}")

    assert found.returncode == 0, found.stderr


def test_kubeflows_executor_runs_without_what_its_sdk_requires() -> None:
    code = "import kfp.dsl.executor_main as executor; sys.argv[1:] = ['--help']; executor.executor_main()"

    found = run_with_only({"kfp"}, code, _KFP_RUNTIME="true")

    assert "KFP Component Executor" in found.stdout, found.stderr


def test_every_image_opens_an_object_store() -> None:
    without = [name for name in IMAGES if not {"s3fs", "tenacity"} <= installed(name)]

    assert without == []


def test_only_the_trainer_carries_torch() -> None:
    assert [name for name in IMAGES if "torch" in installed(name)] == ["python-trainer"]


def test_the_server_carries_no_orchestrator_and_no_registry() -> None:
    assert installed("python-serving") & {"kfp", "kubernetes", "mlflow", "mlflow-skinny", "pyspark", "pandas"} == set()


def test_kubeflows_local_runner_knows_every_image_for_python() -> None:
    assert [name for name in IMAGES if "python" not in name] == []


@pytest.mark.parametrize("image", IMAGES)
def test_what_images_toml_names_exists(image: str) -> None:
    assert [name for name in entries(image) if path_of(name) is None] == []
