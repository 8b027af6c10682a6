"""Where production is served, and so where a candidate is tried."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tidewheel.contracts.base import Contract

_NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class EmbeddedTarget(Contract):
    """Two server processes beside the step, and servers that follow the assignments of the store."""

    kind: Literal["embedded"] = "embedded"


class ArgoTarget(Contract):
    """A Rollout of Argo Rollouts, from the chart `helm/ranker-serving`: its analysis runs the canary, step by step."""

    kind: Literal["argo"]
    namespace: str = Field(pattern=_NAME)
    name: str = Field(pattern=_NAME)
    start_seconds: float = Field(default=600.0, gt=0)  # for pods to come up, once at each step and once at the end


class DeploymentTarget(Contract):
    """A Deployment from the same chart: the canary runs beside the step, and what passes it is rolled out."""

    kind: Literal["deployment"]
    namespace: str = Field(pattern=_NAME)
    name: str = Field(pattern=_NAME)
    start_seconds: float = Field(default=600.0, gt=0)


OnCluster = ArgoTarget | DeploymentTarget
Target = Annotated[EmbeddedTarget | ArgoTarget | DeploymentTarget, Field(discriminator="kind")]
