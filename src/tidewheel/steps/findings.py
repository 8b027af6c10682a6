"""What the steps of a run found: the documents that they left in the store."""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

from tidewheel.contracts.base import Contract
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.evidence import Baseline, DataReport, Evaluation, Rollout
from tidewheel.contracts.report import DatasetSummary, Latency
from tidewheel.contracts.training import TrainingReport
from tidewheel.contracts.verdict import Verdict
from tidewheel.steps.records import document
from tidewheel.store.store import Store

C = TypeVar("C", bound=Contract)
SPLITS = ("train", "calibration", "eval", "randomized")


class Findings:
    """Each attribute is read when it is first asked for; None where the run did not get that far.

    Raises:
        ContractError: a document is not what its contract says.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store, self._run_id = store, run_id

    @cached_property
    def train(self) -> DatasetManifest | None:
        return self._read("sample", "train", DatasetManifest)

    @cached_property
    def data(self) -> Verdict | None:
        return self._read("validate_data", "verdict", Verdict)

    @cached_property
    def data_report(self) -> DataReport | None:
        return self._read("validate_data", "data", DataReport)

    @cached_property
    def baseline(self) -> Baseline | None:
        return self._read("validate_data", "baseline", Baseline)

    @cached_property
    def training(self) -> TrainingReport | None:
        return self._read("train", "training", TrainingReport)

    @cached_property
    def bundle(self) -> BundleManifest | None:
        return self._read("distill", "bundle", BundleManifest)

    @cached_property
    def latency(self) -> Latency | None:
        return self._read("distill", "latency", Latency)

    @cached_property
    def evaluation(self) -> Evaluation | None:
        return self._read("evaluate", "evaluation", Evaluation)

    @cached_property
    def rollout(self) -> Rollout | None:
        return self._read("deploy", "rollout", Rollout)

    def datasets(self) -> dict[str, DatasetSummary]:
        """By split, those that `sample` got as far as."""
        manifests = {name: self._read("sample", name, DatasetManifest) for name in SPLITS}
        return {
            name: DatasetSummary(digest=manifest.digest, rows=manifest.rows, weight_sum=manifest.weight_sum)
            for name, manifest in manifests.items()
            if manifest is not None
        }

    def verdicts(self) -> dict[str, Verdict]:
        """By step, those that were reached."""
        verdicts = {
            "validate_data": self.data,
            "evaluate": self.evaluation.verdict if self.evaluation else None,
            "deploy": self.rollout.verdict if self.rollout else None,
        }
        return {name: verdict for name, verdict in verdicts.items() if verdict is not None}

    def _read(self, step: str, name: str, contract: type[C]) -> C | None:
        text = document(self._store, self._run_id, step, name)
        return contract.parse(text, f"{step} {name} of run {self._run_id}") if text is not None else None
