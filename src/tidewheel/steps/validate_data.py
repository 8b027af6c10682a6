"""Validate data: the contract, and drift against production's training rows. Rejected data stops the run."""

from __future__ import annotations

from tidewheel.contracts.evidence import Baseline, Profile
from tidewheel.contracts.ledger import eligible_teacher, production_after
from tidewheel.contracts.schema import FeatureSpec, feature_digest
from tidewheel.contracts.steps import ValidatePart
from tidewheel.contracts.verdict import Verdict
from tidewheel.errors import RejectedError
from tidewheel.quality.expectations import library
from tidewheel.quality.validate import validate
from tidewheel.ranker.bundle import OpenBundle, load_bundle
from tidewheel.registry.ledger import Ledger
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.tables import read


def main(config: str, run_id: str, window_end: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
    part = ValidatePart.parse(config, "validate_data")

    pinned: list[Baseline] = []  # read from the ledger once: what is looked up for reuse is what is compared with

    def key(job: Job) -> object:
        pinned.append(pin_baseline(part, job))
        return [part.model_dump(mode="json"), job.input_digests(), pinned[0].model_dump(mode="json")]

    run_step("validate_data", run_id, window_end, inputs, outputs, lambda job: work(part, job, pinned[0]), key)


def work(part: ValidatePart, job: Job, baseline: Baseline) -> Result:
    known = profile_of(load_bundle(job.store, baseline.production), part.features) if baseline.production else None
    with job.overhead():
        library()
    tables = {name: read(*job.dataset(name)) for name in ("train", "calibration", "eval")}
    verdict, profile = validate(tables, part.features, part.labels, part.validate_data, known, job.progress)
    if not verdict.is_successful:
        reject(job, verdict)
    return Result(
        documents={"verdict": verdict.to_json(), "profile": profile.to_json(), "baseline": baseline.to_json()},
        summary=f"{len(verdict.reasons)} checks passed",
    )


def profile_of(production: OpenBundle, features: tuple[FeatureSpec, ...]) -> Profile:
    """What production's training rows were like, of the features that the new model will use: a deprecated one may drift."""
    known = Profile.read(production.profile)
    used = {feature.name for feature in features}
    return known.model_copy(
        update={
            field: {name: value for name, value in getattr(known, field).items() if name in used}
            for field in ("numeric_edges", "categorical_values", "shares")
        }
    )


def reject(job: Job, verdict: Verdict) -> None:
    """Keep the verdict for the report, then stop the run.

    Raises:
        RejectedError: always.
    """
    job.keep("verdict", verdict)
    raise RejectedError(f"data rejected: {verdict.explain()}")


def pin_baseline(part: ValidatePart, job: Job) -> Baseline:
    """Production and teacher as the ledger has them now, with every byte of theirs checked.

    Raises:
        ContractError: a bundle that the ledger names is damaged.
    """
    entries = Ledger(job.store, part.recipe).entries()
    production = production_after(entries)
    teacher = eligible_teacher(entries, feature_digest(part.features), part.max_generations) if part.use_teacher else None
    for digest in {production, teacher.bundle if teacher else None} - {None}:
        load_bundle(job.store, str(digest))
    return Baseline(
        production=production,
        teacher=teacher.bundle if teacher else None,
        teacher_generation=teacher.generation if teacher else None,
        ledger_number=len(entries),
    )
