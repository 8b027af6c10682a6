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
NextWindowOption = Annotated[str, typer.Option(help="End of the window, UTC. Default: the next by $TIDEWHEEL_STORE's ledger.")]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", help="Of runs, with --cluster. Default: that of the context, else tidewheel.")
]
PatienceOption = Annotated[
    float,
    typer.Option("--patience", min=0, help="Seconds that --wait gives a pod whose image, ConfigMap or Secret is not there."),
]
LastOption = Annotated[int, typer.Option("--last", min=1, help="How many runs are shown, the newest.")]
RetrainingOption = Annotated[
    str, typer.Option(help="reanchor, pause or continue. Default: what the recipe says in deploy.after_rollback.")
]
RulesOption = Annotated[
    Path | None, typer.Option("--recipe", help="Whose retention and teaching rules hold. Default: of the newest run here.")
]
ManifestFlag = Annotated[
    bool, typer.Option("--manifest", help="Write a Pipeline and a PipelineVersion for kubectl apply instead.")
]
