"""What our code imports, read from its source: a module, all of ours that it uses, and what those take from elsewhere."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = "tidewheel"


def path_of(module: str) -> Path | None:
    base = ROOT / "src" / Path(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)


@cache
def tree_of(module: str) -> ast.Module:
    path = path_of(module)
    assert path is not None, f"{module} is no module of ours"
    return ast.parse(path.read_text(encoding="utf-8"))


def nodes_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All below a node but what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from nodes_at_run_time(child)


def home_of(package: str, name: str) -> str | None:
    """The module of ours in which `from package import name` finds what it takes, through what packages pass on."""
    if path_of(f"{package}.{name}"):
        return f"{package}.{name}"
    if path_of(package) is None:
        return None
    for node in tree_of(package).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(OURS):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return home_of(node.module, alias.name)
    return package


@cache
def uses(module: str) -> frozenset[str]:
    """Modules of ours that a module imports, at once or in a function, or starts as a process of its own."""
    found: set[str | None] = set()
    for node in nodes_at_run_time(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith(OURS)}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(OURS):
            found |= {home_of(node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.List):
            words = [item.value if isinstance(item, ast.Constant) else None for item in node.elts]
            found |= {runnable(str(after)) for word, after in pairwise(words) if word == "-m"}
    return frozenset(name for name in found if name is not None)


def runnable(module: str) -> str:
    """What `python -m module` runs."""
    return f"{module}.__main__" if path_of(f"{module}.__main__") else module


def reached(starts: list[str], closed: frozenset[tuple[str, str]] = frozenset()) -> set[str]:
    """The modules of ours that the starts use, transitively; an edge that is closed is not taken."""
    seen: set[str] = set()
    waiting = list(starts)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += [name for name in uses(module) if (module, name) not in closed]
    return seen


@cache
def foreign(module: str) -> frozenset[str]:
    """Top-level names of what a module imports and neither we nor Python have."""
    names: set[str] = set()
    for node in nodes_at_run_time(tree_of(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return frozenset(names - set(sys.stdlib_module_names) - {OURS, "components", "pipelines"})
