"""Every component is a thin wrapper: an import, a call, a return. And its README is generated from it."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NAMES = ["ingest", "sample", "validate_data", "train", "distill", "evaluate", "deploy"]


def function_of(name: str) -> ast.FunctionDef:
    tree = ast.parse((ROOT / "components" / name / "component.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in functions] == [name]
    return functions[0]


def test_the_components_are_exactly_the_seven() -> None:
    found = {path.parent.name for path in (ROOT / "components").glob("*/component.py")}

    assert found == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_body_is_an_import_and_a_call(name: str) -> None:
    docstring, imported, call = function_of(name).body

    assert isinstance(docstring, ast.Expr)
    assert isinstance(imported, ast.ImportFrom)
    assert (imported.module, [alias.name for alias in imported.names]) == ("tidewheel.steps", [name])
    assert isinstance(call, ast.Expr | ast.Return)
    assert isinstance(call.value, ast.Call)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_documented(name: str) -> None:
    function = function_of(name)
    text = ast.get_docstring(function) or ""

    undocumented = [argument.arg for argument in function.args.args if f"{argument.arg}:" not in text]

    assert undocumented == []


@pytest.mark.parametrize("name", NAMES)
def test_it_installs_nothing_at_run_time(name: str) -> None:
    component = getattr(importlib.import_module(f"components.{name}.component"), name)
    command = " ".join(component.component_spec.implementation.container.command)

    assert "pip install" not in command


def meaning_of(name: str, parameter: str) -> str:
    """What the docstring says of a parameter; `Output` is what is returned."""
    if parameter == "Output":
        return "whether the candidate may be deployed"
    lines = [line.strip() for line in (ast.get_docstring(function_of(name)) or "").splitlines()]
    return next(line.removeprefix(f"{parameter}: ") for line in lines if line.startswith(f"{parameter}: "))


def readme_of(name: str) -> str:
    """The component's interface as a page: from its signature and docstring alone."""
    spec = getattr(importlib.import_module(f"components.{name}.component"), name).component_spec
    lines = [f"# {name}", "", spec.description.split("\n")[0], "", f"Image: `{spec.implementation.container.image}`", ""]
    for title, fields in (("Inputs", spec.inputs), ("Outputs", spec.outputs)):
        if fields:
            lines += [f"## {title}", "", "| name | type | meaning |", "| --- | --- | --- |"]
            rows = [(key, value.type.split("@")[0]) for key, value in fields.items()]
            lines += [f"| `{key}` | {kind} | {meaning_of(name, key)} |" for key, kind in rows] + [""]
    lines += [f"The work is in [`tidewheel.steps.{name}`](../../src/tidewheel/steps/{name}.py).", ""]
    return "\n".join(lines)


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_is_the_interface(name: str, golden: bool) -> None:
    path = ROOT / "components" / name / "README.md"
    if golden:
        path.write_text(readme_of(name), encoding="utf-8")

    assert path.read_text(encoding="utf-8") == readme_of(name), "make golden"


@pytest.mark.parametrize("name", NAMES)
def test_it_survives_the_trip_through_yaml(name: str, tmp_path: Path) -> None:
    from kfp import compiler
    from kfp.components import load_component_from_file

    component = getattr(importlib.import_module(f"components.{name}.component"), name)
    path = tmp_path / "component.yaml"
    compiler.Compiler().compile(component, str(path))

    assert load_component_from_file(str(path)).component_spec.inputs == component.component_spec.inputs
    assert yaml.safe_load(path.read_text(encoding="utf-8"))
