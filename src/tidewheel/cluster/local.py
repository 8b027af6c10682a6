"""Runs a recipe's compiled pipeline on this machine with `kfp.local`: the child process of `tidewheel run`.

    python -m tidewheel.cluster.local RECIPE.json PIPELINE.yaml WINDOW_END REASON DRY_RUN

The compiled YAML is what runs; there is no second path. Output of the steps goes to this process's stdout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kfp import local
from kfp.components import load_component_from_file

from pipelines.compile import compile_recipe
from tidewheel.contracts.recipe import Recipe


def run_pipeline(recipe: Recipe, pipeline: Path, arguments: dict[str, str | bool]) -> None:
    """Compile `recipe`, with one try a step, to `pipeline` and run that file; artifacts go beside it.

    Raises:
        RuntimeError: a step failed. Its record says why.
    """
    compile_recipe(recipe.model_copy(update={"placement": recipe.placement.on_a_laptop()}), pipeline)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(pipeline.parent / "artifacts"),
        workspace_root=str(pipeline.parent / "workspace"),
    )
    load_component_from_file(str(pipeline))(**arguments)


if __name__ == "__main__":
    recipe_path, pipeline_path, window_end, reason, dry_run = sys.argv[1:]
    # Threads that spin while they wait for each other stand still when another process has their core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    chosen = Recipe.read(Path(recipe_path))
    values: dict[str, str | bool] = {"window_end": window_end, "reason": reason, "dry_run": dry_run == "true"}
    run_pipeline(chosen, Path(pipeline_path), values)
