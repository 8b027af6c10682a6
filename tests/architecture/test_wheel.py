"""What an installed wheel holds beside modules."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_beside_the_modules_goes_into_the_wheel() -> None:
    """`tidewheel init` writes some of them, from an image too."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    source = ROOT / "src"
    packed = {
        path
        for package, globs in patterns.items()
        for glob in globs
        for path in (source / package.replace(".", "/")).glob(glob)
    }
    files = {path for path in (source / "tidewheel").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files, "templates of tidewheel init"
    assert files == packed
