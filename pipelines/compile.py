"""Recipe -> compiled pipeline YAML."""

import hashlib
import tempfile
from pathlib import Path

from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.dsl.base_component import BaseComponent

from pipelines.retrain import retrain_pipeline
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.recipe import Recipe, pipeline_name
from tidewheel.contracts.steps import parts


def compile_recipe(recipe: Recipe, output: Path) -> Path:
    """Compile the retrain pipeline of a recipe to `output`. Equal recipes give equal bytes."""
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(_pipeline(recipe), str(output))
    return output


def compiled(recipe: Recipe) -> bytes:
    """What `compile_recipe` writes."""
    with tempfile.TemporaryDirectory() as scratch:
        return compile_recipe(recipe, Path(scratch) / "pipeline.yaml").read_bytes()


def compile_manifests(recipe: Recipe, output: Path, namespace: str) -> Path:
    """The same as objects for `kubectl apply`: a Pipeline and a PipelineVersion.

    The version is named by the digest of what runs, so that `tidewheel submit` finds it there.

    A backend that keeps pipelines as Kubernetes objects (2.14 and newer, `--pipelinesStoreKubernetes`) takes them.
    """
    options = KubernetesManifestOptions(
        pipeline_name=pipeline_name(recipe.name),
        pipeline_version_name=hashlib.sha256(compiled(recipe)).hexdigest(),
        namespace=namespace or None,
        include_pipeline_manifest=True,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(
        _pipeline(recipe), str(output), kubernetes_manifest_format=True, kubernetes_manifest_options=options
    )
    return output


def _pipeline(recipe: Recipe) -> BaseComponent:
    texts = {step: canonical_json(part.model_dump(mode="json")) for step, part in parts(recipe).items()}
    return retrain_pipeline(recipe.name, texts, recipe.placement)
