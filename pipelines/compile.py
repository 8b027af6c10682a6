"""Recipe -> compiled pipeline YAML."""

from pathlib import Path

from kfp import compiler

from pipelines.retrain import retrain_pipeline
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.steps import parts


def compile_recipe(recipe: Recipe, output: Path) -> Path:
    """Compile the retrain pipeline of a recipe to `output`. Equal recipes give equal bytes."""
    texts = {step: canonical_json(part.model_dump(mode="json")) for step, part in parts(recipe).items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(retrain_pipeline(recipe.name, texts, recipe.placement), str(output))
    return output
