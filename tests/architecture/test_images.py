"""Every step runs in one image, and the image's extras cover what the step imports."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = tomllib.loads((ROOT / "images" / "images.toml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STEPS = ["ingest", "sample", "validate_data", "train", "distill", "evaluate", "deploy", "conclude"]


def distribution(requirement: str) -> str:
    return re.split(r"[<>=\[ ;]", requirement)[0].lower().replace("_", "-")


@cache
def closure(name: str) -> frozenset[str]:
    """A distribution and everything it requires, without extras."""
    try:
        requires = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return frozenset({name})
    direct = {distribution(text) for text in requires if "extra ==" not in text}
    return frozenset({name}).union(*(closure(child) for child in direct if child != name))


def available(extras: list[str]) -> set[str]:
    """Import names that an image with these extras has."""
    wanted = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    distributions: set[str] = set()
    for text in wanted:
        distributions |= closure(distribution(text))
    owners = importlib.metadata.packages_distributions()
    return {module for module, names in owners.items() if any(distribution(name) in distributions for name in names)}


def first_party(path: Path, seen: set[Path]) -> set[Path]:
    """A file and every file of ours that it imports at module level, transitively."""
    if path in seen:
        return seen
    seen.add(path)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.startswith("tidewheel"):
                base = ROOT / "src" / Path(*name.split("."))
                for candidate in (base.with_suffix(".py"), base / "__init__.py"):
                    if candidate.exists():
                        first_party(candidate, seen)
    return seen


def foreign_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"tidewheel", "components", "pipelines"}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_runs_in_exactly_one_image(step: str) -> None:
    assert sum(step in image["steps"] for image in IMAGES.values()) == 1


@pytest.mark.parametrize("step", STEPS)
def test_what_a_step_imports_is_in_its_image(step: str) -> None:
    image = next(image for image in IMAGES.values() if step in image["steps"])
    files = first_party(ROOT / "src" / "tidewheel" / "steps" / f"{step}.py", set())
    # Imports inside functions are part of the step's work too, but of those modules that it loads at all.
    needed = set().union(*(foreign_imports(path) for path in files))

    assert needed - available(image["extras"]) == set()


def test_every_image_opens_an_object_store() -> None:
    without = [name for name, image in IMAGES.items() if not {"s3fs", "tenacity"} <= available(image["extras"])]

    assert without == []


def test_only_the_trainer_image_carries_torch() -> None:
    with_torch = [name for name, image in IMAGES.items() if "torch" in available(image["extras"])]

    assert with_torch == ["python-trainer"]
