"""The part of a recipe that each step depends on. A step whose part did not change may be reused."""

from __future__ import annotations

from tidewheel.contracts.base import Contract
from tidewheel.contracts.evaluation import EvaluateConfig
from tidewheel.contracts.learning import DistillConfig, TrainConfig
from tidewheel.contracts.recipe import (
    DeployConfig,
    IngestConfig,
    LabelConfig,
    Recipe,
    Source,
    ValidateConfig,
    WindowConfig,
)
from tidewheel.contracts.sampling import SampleConfig
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.teacher import TeacherRules


class IngestPart(Contract):
    recipe: str
    source: Source
    window: WindowConfig
    labels: tuple[LabelConfig, ...]
    features: tuple[FeatureSpec, ...]
    ingest: IngestConfig


class SamplePart(Contract):
    window: WindowConfig
    labels: tuple[LabelConfig, ...]
    sample: SampleConfig


class ValidatePart(Contract):
    recipe: str
    labels: tuple[LabelConfig, ...]
    features: tuple[FeatureSpec, ...]
    validate_data: ValidateConfig
    teaching: TeacherRules
    releases: int  # earlier ones that `evaluate` compares with: they are pinned with production


class TrainPart(Contract):
    labels: tuple[LabelConfig, ...]
    features: tuple[FeatureSpec, ...]
    train: TrainConfig


class DistillPart(Contract):
    recipe: str
    recipe_digest: str
    labels: tuple[LabelConfig, ...]
    distill: DistillConfig


class EvaluatePart(Contract):
    labels: tuple[LabelConfig, ...]
    evaluate: EvaluateConfig


class DeployPart(Contract):
    recipe: str
    source: Source
    window: WindowConfig
    labels: tuple[LabelConfig, ...]
    features: tuple[FeatureSpec, ...]
    ingest: IngestConfig
    deploy: DeployConfig


class ConcludePart(Contract):
    recipe: str
    recipe_digest: str
    window: WindowConfig


def parts(recipe: Recipe) -> dict[str, Contract]:
    """Step name -> its part."""
    labels, features, digest = recipe.labels, recipe.active_features, recipe.digest
    return {
        "ingest": IngestPart(
            recipe=recipe.name,
            source=recipe.source,
            window=recipe.window,
            labels=labels,
            features=features,
            ingest=recipe.ingest,
        ),
        "sample": SamplePart(window=recipe.window, labels=labels, sample=recipe.sample),
        "validate_data": ValidatePart(
            recipe=recipe.name,
            labels=labels,
            features=features,
            validate_data=recipe.validate_data,
            teaching=recipe.train.teaching,
            releases=recipe.evaluate.releases,
        ),
        "train": TrainPart(labels=labels, features=features, train=recipe.train),
        "distill": DistillPart(recipe=recipe.name, recipe_digest=digest, labels=labels, distill=recipe.distill),
        "evaluate": EvaluatePart(labels=labels, evaluate=recipe.evaluate),
        "deploy": DeployPart(
            recipe=recipe.name,
            source=recipe.source,
            window=recipe.window,
            labels=labels,
            features=features,
            ingest=recipe.ingest,
            deploy=recipe.deploy,
        ),
        "conclude": ConcludePart(recipe=recipe.name, recipe_digest=digest, window=recipe.window),
    }
