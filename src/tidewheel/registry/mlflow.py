"""The door to MLflow: bundles as versions of one registered model, named by the tag `tidewheel.digest`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from tidewheel.errors import ContractError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DIGEST_TAG = "tidewheel.digest"
_QUIET = {"MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}


class MlflowRegistry:
    """Implements `projections.Registry`. MLflow is imported, and its database made, when first needed: seconds."""

    def __init__(self, tracking_uri: str, model: str, bundles: str) -> None:
        """
        Args:
            tracking_uri: `sqlite:///…` or the address of a server; `file:` is not supported by MLflow any more.
            model: name of the registered model.
            bundles: path or URL of the folder whose subfolders are the bundles, named by digest.
        """
        self._uri = tracking_uri
        self._model = model
        self._bundles = bundles

    def register(self, bundle: str, tags: Mapping[str, str]) -> str:
        """Make a version whose source is the bundle's folder, or find the one that has its digest; returns its number."""
        found = self._versions().get(bundle)
        if found is None:
            source = f"{self._bundles}/{bundle}"
            found = self._client.create_model_version(self._model, source, tags={DIGEST_TAG: bundle, **tags})
            return str(found.version)
        for name, value in tags.items():
            if found.tags.get(name) != value:
                self._client.set_model_version_tag(self._model, found.version, name, value)
        return str(found.version)

    def aliases(self) -> dict[str, str]:
        """Alias -> digest; an alias of a version that is not ours or gone counts as pointing to ``."""
        digests = {str(version.version): digest for digest, version in self._versions().items()}
        aliases = self._client.get_registered_model(self._model).aliases
        return {alias: digests.get(str(version), "") for alias, version in aliases.items()}

    def point(self, alias: str, bundle: str | None) -> None:
        """Set or remove one alias.

        Raises:
            ContractError: the bundle has no version yet.
        """
        if bundle is None:
            self._client.delete_registered_model_alias(self._model, alias)
            return
        version = self._versions().get(bundle)
        if version is None:
            raise ContractError(f"registry {self._model}: bundle {bundle[:12]} has no version; register it first")
        self._client.set_registered_model_alias(self._model, alias, version.version)

    def _versions(self) -> dict[str, ModelVersion]:
        """Digest -> its oldest version, so that two writers who raced agree on one."""
        versions = self._client.search_model_versions(f"name = '{self._model}'", max_results=10_000)
        found: dict[str, ModelVersion] = {}
        for version in sorted(versions, key=lambda version: int(version.version)):
            if digest := version.tags.get(DIGEST_TAG):
                found.setdefault(digest, version)
        return found

    @cached_property
    def _client(self) -> MlflowClient:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException

            # Migrations of a fresh database tell of fifty steps that nobody asked about.
            logging.getLogger("alembic").setLevel(logging.WARNING)
            logging.getLogger("mlflow").setLevel(logging.WARNING)
            client = MlflowClient(self._uri, self._uri)
            try:
                client.create_registered_model(self._model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        return client
