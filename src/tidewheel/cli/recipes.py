"""Reading a recipe file: YAML, `--set` and `--data`, and faults that name their place."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tidewheel.contracts.base import first_fault
from tidewheel.contracts.recipe import Recipe, WorldSource
from tidewheel.errors import ConfigError


def load_recipe(path: Path, settings: Iterable[str] = (), data: Path | None = None, *, needs_data: bool = True) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        settings: `section.key=value` each; the value is YAML.
        data: folder of the log; replaces `source.path`.
        needs_data: whether the log's folder must be named and there.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or breaks the recipe contract.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"recipe {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"recipe {path}: expected a mapping of sections, found {type(document).__name__}")
    for setting in settings:
        _set(document, setting)
    if data is not None:
        _set_data(document, path, data)
    recipe = _validated(document, path.name)
    return _with_absolute_path(recipe, path, data) if needs_data else recipe


def load_cluster_recipe(path: Path, settings: Iterable[str] = (), data: str = "") -> Recipe:
    """Read and check a recipe whose steps run in pods: its log lies where they see it, which need not be here.

    Raises:
        ConfigError: as `load_recipe`, or the log's folder is not named or is relative.
    """
    if data:
        settings = [*settings, f"source.path={json.dumps(data)}"]
    recipe = load_recipe(path, settings, needs_data=False)
    if isinstance(recipe.source, WorldSource):
        return recipe
    place = recipe.source.path or ""
    if not place.startswith("/") and "://" not in place:
        found = f"source.path is {place}" if place else "source.path is not given"
        raise ConfigError(
            f"recipe {path.name}: {found}; expected an absolute folder or an address that the pods see, e.g. /data/log"
        )
    return recipe


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """The recipe with some values changed, each `section.key=value`.

    Raises:
        ConfigError: as `load_recipe`.
    """
    document = recipe.model_dump(mode="json", by_alias=True)
    for setting in settings:
        _set(document, setting)
    return _validated(document, recipe.name)


def _validated(document: dict[str, Any], name: str) -> Recipe:
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"recipe {name}: {_suggest(error)}") from error


def _set(document: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {setting}: expected section.key=value, e.g. --set train.optimizer.epochs=2")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not YAML") from error
    *parents, last = key.split(".")
    place: Any = document
    for parent in parents:
        if not isinstance(place, dict):
            break
        place = place.setdefault(parent, {})
    if not isinstance(place, dict):
        raise ConfigError(f"--set {setting}: {'.'.join(parents)} is not a section")
    place[last] = value


def _set_data(document: dict[str, Any], path: Path, data: Path) -> None:
    source = document.get("source")
    if not isinstance(source, dict) or source.get("kind") == "world":
        raise ConfigError(f"--data {data}: recipe {path.name} reads the built-in world; choose a recipe of a recorded log")
    source["path"] = str(data)


def _with_absolute_path(recipe: Recipe, path: Path, data: Path | None) -> Recipe:
    """A data folder named in the recipe is relative to it; one from the command line to the current folder."""
    if isinstance(recipe.source, WorldSource):
        return recipe
    if not recipe.source.path:
        raise ConfigError(f"recipe {path.name}: source.path is not given; name the folder of the log with --data DIR")
    folder = (Path.cwd() if data is not None else path.parent) / recipe.source.path
    if not folder.is_dir():
        raise ConfigError(f"data folder {folder}: is not there; name the folder of the log with --data DIR")
    source = recipe.source.model_copy(update={"path": str(folder.resolve())})
    return recipe.model_copy(update={"source": source})


def _suggest(error: ValidationError) -> str:
    """The first fault, with the nearest known name for an unknown key."""
    text = first_fault(error)
    fault = error.errors(include_url=False)[0]
    if fault["type"] != "extra_forbidden":
        return text
    place = [part for part in fault["loc"] if isinstance(part, str) and part not in ("world", "kuairand", "parquet")]
    near = difflib.get_close_matches(place[-1], _known_names(place[:-1]), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{'.'.join(place)}: unknown key.{hint}"


def _known_names(section: list[str]) -> list[str]:
    """Every key that may stand in a section of the recipe, from its JSON Schema."""
    schema = Recipe.model_json_schema()
    definitions = schema.get("$defs", {})
    nodes = [schema]
    for name in section:
        nodes = [target for node in nodes for target in _targets(node.get("properties", {}).get(name, {}), definitions)]
    return [name for node in nodes for name in node.get("properties", {})]


def _targets(node: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that a property's schema may be, through references, unions and lists."""
    found = [node] if "properties" in node else []
    if "$ref" in node:
        found += _targets(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    for key in ("anyOf", "oneOf", "allOf"):
        found += [target for option in node.get(key, []) for target in _targets(option, definitions)]
    if isinstance(node.get("items"), dict):
        found += _targets(node["items"], definitions)
    return found
