"""The door to MLflow: bundles as versions of one registered model, named by the tag `tidewheel.digest`, and one run of the
experiment of the same name for every candidate that was judged, named by the tag `tidewheel.run_id`."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from tidewheel.errors import ContractError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

DIGEST_TAG, RUN_TAG = "tidewheel.digest", "tidewheel.run_id"
FOLDER_SCHEME = "tidewheel:"
FIGURES_OF_A_CALL = 1000  # more are refused
_QUIET = {"MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
# A server that is down is not worth waiting minutes for: decisions do not depend on it.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class MlflowRegistry:
    """Implements `versions.Registry`. MLflow is imported, and its database made, when first needed: seconds."""

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
        found = self._found().get(bundle)
        if found is None:
            found = self._client.create_model_version(self._model, self._source(bundle), tags={DIGEST_TAG: bundle, **tags})
            return str(found.version)
        for name, value in tags.items():
            if found.tags.get(name) != value:
                self._client.set_model_version_tag(self._model, found.version, name, value)
        return str(found.version)

    def _source(self, bundle: str) -> str:
        """Where a bundle lies. A server refuses paths, which would be its own: there they have a scheme of ours before them."""
        is_elsewhere = self._uri.startswith("http") and "://" not in self._bundles
        return f"{FOLDER_SCHEME if is_elsewhere else ''}{self._bundles}/{bundle}"

    def versions(self) -> dict[str, dict[str, str]]:
        """Digest -> tags, of every version that names one."""
        return {digest: dict(version.tags) for digest, version in self._found().items()}

    def aliases(self) -> dict[str, str]:
        """Alias -> digest; an alias of a version that is not ours or gone counts as pointing to ``."""
        digests = {str(version.version): digest for digest, version in self._found().items()}
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
        version = self._found().get(bundle)
        if version is None:
            raise ContractError(f"registry {self._model}: bundle {bundle[:12]} has no version; register it first")
        self._client.set_registered_model_alias(self._model, alias, version.version)

    def record(self, run: str, tags: Mapping[str, str], figures: Mapping[str, float]) -> str:
        """Keep the figures of a judged candidate as one run, or find it and write its tags over; returns MLflow's id of it.

        Idempotent, also after a crash half way: figures are written again until the run is finished, at its own time.

        Args:
            run: id of the run of the wheel.
            figures: finite numbers by name.
        """
        from mlflow.entities import Metric, RunTag

        tags = {RUN_TAG: run, **tags}
        experiment = self._experiment()
        found = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run}'", max_results=1)
        made: Run = found[0] if found else self._client.create_run(experiment, tags=dict(tags), run_name=run)
        key, began = made.info.run_id, made.info.start_time
        changed = [RunTag(name, value) for name, value in tags.items() if made.data.tags.get(name) != value]
        if changed:
            self._client.log_batch(key, tags=changed)
        if made.info.status != "FINISHED":
            named = [Metric(re.sub(r"[^\w.\- ]", "_", name), value, began, 0) for name, value in figures.items()]
            for start in range(0, len(named), FIGURES_OF_A_CALL):
                self._client.log_batch(key, metrics=named[start : start + FIGURES_OF_A_CALL])
            self._client.set_terminated(key)
        return str(key)

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        if (known := self._client.get_experiment_by_name(self._model)) is not None:
            return str(known.experiment_id)
        try:
            return str(self._client.create_experiment(self._model))
        except MlflowException:
            if (theirs := self._client.get_experiment_by_name(self._model)) is None:
                raise
            return str(theirs.experiment_id)  # another process was faster

    def _found(self) -> dict[str, ModelVersion]:
        """Digest -> its oldest version, so that two writers who raced agree on one."""
        versions = self._client.search_model_versions(f"name = '{self._model}'", max_results=10_000)
        found: dict[str, ModelVersion] = {}
        for version in sorted(versions, key=lambda version: int(version.version)):
            if digest := version.tags.get(DIGEST_TAG):
                found.setdefault(digest, version)
        return found

    @cached_property
    def _client(self) -> MlflowClient:
        for name, value in (_QUIET | _IMPATIENT).items():
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
