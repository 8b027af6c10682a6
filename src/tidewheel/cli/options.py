"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
HomeOption = Annotated[
    str, typer.Option("--home", help="Folder of the store, runs and registry. Default: $TIDEWHEEL_HOME, else .tidewheel.")
]
NameOption = Annotated[str, typer.Option("--name", help="Name of the recipe, where the home has several.")]
RecipeOption = Annotated[Path, typer.Option("--recipe", help="The recipe, a YAML file.")]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of the log; replaces source.path of the recipe.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="section.key=value", help="Change one value of the recipe.")
]
