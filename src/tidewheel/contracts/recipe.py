"""The recipe: one strict YAML file that says what a turn of the wheel does. Resolved and digested at compile time."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tidewheel.contracts.base import Contract, digest_of
from tidewheel.contracts.evaluation import EvaluateConfig
from tidewheel.contracts.experiment import HoldoutConfig
from tidewheel.contracts.faults import AnyFault
from tidewheel.contracts.learning import DistillConfig, TrainConfig
from tidewheel.contracts.ledger import AfterRollback
from tidewheel.contracts.network import context_fault
from tidewheel.contracts.placement import Placement
from tidewheel.contracts.retention import RetentionRules
from tidewheel.contracts.sampling import Rate, SampleConfig, Share
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec, active, feature_columns
from tidewheel.contracts.student import student_fault, student_features
from tidewheel.contracts.target import EmbeddedTarget, Target
from tidewheel.contracts.verdict import Severity
from tidewheel.contracts.window import Moment

# --- where the log is -------------------------------------------------------------------------------------------------


class WorldSource(Contract):
    """The built-in click world. Its days are made when a window first asks for them, ranked by who was production.

    It writes a hybrid log (docs/hybrid-log.md): of the impressions that nobody engaged with a share of `negative_logging_rate`,
    of randomized requests `randomized_logging_rate`. Its users react within four hours of an impression.
    """

    kind: Literal["world"]
    seed: int = 7
    start: Moment
    num_users: int = Field(default=4000, ge=10)
    num_items: int = Field(default=1500, ge=10)
    requests_per_day: int = Field(default=2500, ge=1)
    slate_size: int = Field(default=8, ge=2)
    negative_logging_rate: Rate = 0.25
    randomized_share: Share = 0.05
    randomized_logging_rate: Rate = 1.0  # whole requests, so that a model's first picks among them are known
    faults: tuple[AnyFault, ...] = ()


class HybridSource(Contract):
    """A hybrid log (docs/hybrid-log.md) in the folder `path`. `labels` are the engagements that clients report.

    `skip_days` are days that one part of the log will never have: without being named here they hold back all after them.
    """

    kind: Literal["hybrid"]
    path: str = ""
    labels: tuple[str, ...] = Field(min_length=1)
    skip_days: tuple[date, ...] = ()


class KuaiRandSource(Contract):
    """KuaiRand's standard log: `path` is the folder with `log_standard_*.parquet` and the feature tables."""

    kind: Literal["kuairand"]
    path: str = ""


class ParquetSource(Contract):
    """Any Parquet log. `columns` maps canonical columns to the log's; `labels` maps labels to 0/1 columns.

    `outcomes` are columns measured after the impression and `future` those that look past it: neither can be a feature.
    Ids that are not integers are hashed to 64 bits. Without `inclusion_probability` every row counts once.
    """

    kind: Literal["parquet"]
    path: str = ""
    columns: dict[str, str]
    labels: dict[str, str]
    outcomes: tuple[str, ...] = ()
    future: tuple[str, ...] = ()


Source = Annotated[WorldSource | HybridSource | KuaiRandSource | ParquetSource, Field(discriminator="kind")]


# --- one section a step -----------------------------------------------------------------------------------------------


class WindowConfig(Contract):
    """The window has `days` days; its last `eval_days` are never trained on. Turns end every `stride_days`."""

    days: int = Field(ge=2)
    eval_days: int = Field(default=1, ge=1)
    first_end: Moment
    stride_days: int = Field(default=1, ge=1)
    label_horizon_hours: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _leaves_days_to_train_on(self) -> Self:
        if self.eval_days >= self.days:
            raise ValueError(f"eval_days is {self.eval_days} of {self.days} days; expected at least one day to train on")
        return self


class LabelConfig(Contract):
    """One task of the model. `prior` is the label's rate in a counter that has seen nothing yet.

    `gated` labels decide; the others are reported. A label too rare to judge belongs there.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    task_weight: float = Field(default=1.0, gt=0)
    prior: Rate = 0.1
    gated: bool = True


class CounterConfig(Contract):
    """As-of counters: `<entity>_<label>_rate` and `<entity>_impressions` for user, item and author.

    On a row of day D (UTC), over the rows of the days [D - lookback_days, D), each weighted by 1 / inclusion_probability:
    impressions = sum(w);  rate = (sum(w * label) + smoothing * prior) / (impressions + smoothing).
    Where the log tells when a label came, the label counts from that day on, and until then the row counts as the impression
    that it was: 1 / its logging rate, or nothing if only its engagement was logged.
    """

    labels: tuple[str, ...]
    smoothing: float = Field(default=20.0, gt=0)
    lookback_days: int = Field(default=28, ge=1)


class IngestConfig(Contract):
    """`max_lateness_days`: lines of a hybrid log that arrive later than this after what they report are quarantined."""

    max_quarantine_share: Share = 0.05
    max_lateness_days: int = Field(default=1, ge=0, le=30)
    counters: CounterConfig


# The first word of every check of the data; `validate_data.severity` is given by it, or by more words of the check's name.
CHECK_FAMILIES = ("calibration", "drift", "expect", "freshness", "label_rate", "separation", "split", "volume")


class ValidateConfig(Contract):
    """Limits of the data (docs/decisions/0010).

    Drift compares the training rows with production's. A distance fails when the lower end of its interval is above its
    limit. `false_alarm_rate` is for the whole run: with unchanged data, and however small the limits, the chance that any
    of its comparisons (every feature and label, and production's calibration) fails is at most this. It is shared out
    equally, so all intervals of a run hold together. Below `min_effective_rows` (weights and repeated users accounted for)
    a comparison is Inconclusive.

    Volume and label rates are judged against the median of the last `trailing_windows` windows that passed; two at least.

    `severity` turns a family of checks, or the checks whose name begins with a key, into warnings or back, e.g.
    `{drift item_age_days: warning, calibration: critical}`; the longest key wins.
    """

    min_rows: int = Field(default=1000, ge=1)
    max_null_share: Share = 0.2
    max_age_hours: float = Field(default=24.0, gt=0)  # of the newest impression, at the end of the window
    max_psi: float = Field(default=0.25, gt=0)
    max_label_psi: float = Field(default=0.1, gt=0)
    max_ks: float = Field(default=0.25, gt=0, lt=1)  # numeric features
    max_calibration_error: float = Field(default=0.25, gt=0)  # production's |predicted / actual - 1| on the new window
    max_ece: float = Field(default=0.05, gt=0)
    false_alarm_rate: float = Field(default=0.01, gt=0, lt=0.5)
    min_effective_rows: float = Field(default=200.0, ge=1)
    unchecked_drift: tuple[str, ...] = ()  # features whose drift is expected, e.g. ids: reported, not judged
    trailing_windows: int = Field(default=8, ge=2)
    max_volume_change: float = Field(default=0.5, gt=0)  # relative to the median, either way
    max_label_rate_change: float = Field(default=0.5, gt=0)
    severity: dict[str, Severity] = {}
    spark_above_rows: int = Field(default=100_000_000, ge=0)  # a split with more rows is checked on Spark, which needs Java

    @model_validator(mode="after")
    def _severities_name_checks(self) -> Self:
        if unknown := sorted({key.split(" ")[0] for key in self.severity} - set(CHECK_FAMILIES)):
            raise ValueError(f"severity names {unknown[0]}; expected keys that begin with {', '.join(CHECK_FAMILIES)}")
        return self


WEEK_SECONDS = 7 * 86_400.0


class CanaryStep(Contract):
    """One step: `share` of users see the candidate until the test decides, or until `max_requests` of the candidate or
    `max_seconds` of the traffic's time have passed. It passes after all three minima; events are goal labels of the candidate.
    """

    share: Rate
    min_requests: int = Field(ge=1)
    max_requests: int = Field(ge=1)
    min_events: int = Field(default=0, ge=0)
    min_seconds: float = Field(default=0.0, ge=0)
    max_seconds: float = Field(default=WEEK_SECONDS, gt=0)  # silence holds a step so long, and then ends it undecided

    @model_validator(mode="after")
    def _min_is_not_above_max(self) -> Self:
        if self.min_requests > self.max_requests:
            raise ValueError(f"min_requests {self.min_requests} is above max_requests {self.max_requests}")
        if self.min_seconds >= self.max_seconds:
            raise ValueError(f"min_seconds {self.min_seconds:g} is not below max_seconds {self.max_seconds:g}")
        return self


class DeployConfig(Contract):
    """The canary. One error budget `alpha` is split over signals and steps; margins are non-inferiority margins.

    `max_engagement_drop` is relative (world only), `max_logloss_rise` absolute per impression, `max_latency_ratio` of the
    arms' median latency, `max_error_rate` of requests, `max_calibration_error` of predicted / actual against 1,
    `max_score_shift` relative, of the mean score, `max_coverage_drop` of the share of a feature's values that are there.
    `goals` are signals that must get better, not only no worse: `engagement`, `logloss LABEL`.
    `after_rollback` is what becomes of retraining when production is taken back later. `target` is where production is served.
    """

    target: Target = EmbeddedTarget()
    steps: tuple[CanaryStep, ...] = Field(min_length=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    goal_label: str = "click"
    max_engagement_drop: float = Field(default=0.1, gt=0)
    max_logloss_rise: float = Field(default=0.05, gt=0)
    max_error_rate: float = Field(default=0.01, gt=0, lt=1)
    max_latency_ratio: float = Field(default=3.0, gt=1)
    max_calibration_error: float = Field(default=0.2, gt=0)
    max_score_shift: float = Field(default=0.3, gt=0)
    max_coverage_drop: float = Field(default=0.05, gt=0, lt=1)
    goals: tuple[str, ...] = ()
    max_broken_batches: int = Field(default=2, ge=0)  # more whose measurement broke (NaN, a missing series) end the canary
    batch_requests: int = Field(default=100, ge=1)  # requests between two looks of the sequential test
    after_rollback: AfterRollback = AfterRollback.REANCHOR
    holdout: HoldoutConfig | None = None  # after publication (docs/holdout.md); null: nobody is held out, nothing is watched

    @model_validator(mode="after")
    def _goals_can_get_better(self) -> Self:
        if unknown := [name for name in self.goals if name != "engagement" and not name.startswith("logloss ")]:
            raise ValueError(f"goals names {unknown[0]}; expected engagement or logloss LABEL")
        if self.holdout and self.target.kind != "embedded":
            raise ValueError(
                f"holdout needs servers that follow the store; those of target {self.target.kind} serve one bundle. Expected "
                "target embedded, or no holdout"
            )
        return self


class Recipe(Contract):
    """Everything about a turn but its window."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    source: Source
    window: WindowConfig
    labels: tuple[LabelConfig, ...] = Field(min_length=1)
    features: tuple[FeatureSpec, ...] = Field(min_length=1)
    ingest: IngestConfig
    sample: SampleConfig = SampleConfig()
    validate_data: ValidateConfig = ValidateConfig()
    train: TrainConfig = TrainConfig()
    distill: DistillConfig = DistillConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    deploy: DeployConfig
    retention: RetentionRules = RetentionRules()
    placement: Placement = Placement()

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        labels = {label.name for label in self.labels}
        names = feature_columns(self.active_features)
        if not names:
            raise ValueError("every feature is deprecated; a model needs at least one")
        ids = [str(feature.id) for feature in self.features]
        for what, values in (("feature name", names), ("feature id", ids), ("label", [label.name for label in self.labels])):
            if repeated := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"{what} given twice: {', '.join(repeated)}")
        used = {
            **{f"features.{feature.name}": {feature.label} - {""} for feature in self.active_features},
            "ingest.counters.labels": set(self.ingest.counters.labels),
            "sample": set(self.sample.labels),
            "evaluate.min_auc": set(self.evaluate.min_auc),
            "evaluate.claims": {label for claim in self.evaluate.claims for label in claim.labels},
            "deploy.goal_label": {self.deploy.goal_label},
            "deploy.goals": {name.removeprefix("logloss ") for name in self.deploy.goals} - {"engagement"},
            "deploy.holdout.goal_label": {self.deploy.holdout.goal_label} if self.deploy.holdout else set(),
            "train.teacher.by_label": set(self.train.teacher.by_label),
            "distill.calibrators": set(self.distill.calibrators),
        }
        for place, wanted in used.items():
            if unknown := sorted(wanted - labels):
                raise ValueError(
                    f"{place} names {', '.join(unknown)}; expected labels of this recipe: {', '.join(sorted(labels))}"
                )
        if unknown := sorted(set(self.evaluate.slices) - {x.name for x in self.active_features if not x.is_sequence}):
            raise ValueError(f"evaluate.slices names {', '.join(unknown)}; expected features of this recipe")
        self._check_sequences()
        if isinstance(self.source, WorldSource | HybridSource) and not self.window.label_horizon_hours:
            raise ValueError(
                "window.label_horizon_hours is 0; expected at least 1: labels of a hybrid log come after the impression"
            )
        if self.deploy.holdout and not isinstance(self.source, WorldSource | HybridSource):
            raise ValueError(
                f"deploy.holdout needs a log that says which bundle served, found source.kind {self.source.kind}; "
                "expected world or hybrid"
            )
        if not (gated := {label.name for label in self.labels if label.gated}):
            raise ValueError("no label is gated: nothing would ever be judged")
        claimed = {label for claim in self.evaluate.claims for label in claim.labels or gated}
        if silent := sorted(gated - claimed):
            raise ValueError(f"evaluate.claims says nothing of {', '.join(silent)}; expected a claim about every gated label")
        return self

    def _check_sequences(self) -> None:
        hashed = {x.name for x in self.active_features if x.kind is FeatureKind.HASHED and x.entity is Entity.ITEM}
        for feature in self.active_features:
            if feature.is_sequence and feature.of not in hashed:
                raise ValueError(
                    f"features.{feature.name} is of {feature.of}; expected a hashed feature of entity item of this recipe: "
                    f"{', '.join(sorted(hashed)) or 'it has none'}"
                )

    @model_validator(mode="after")
    def _student_can_be(self) -> Self:
        wanted = self.distill
        kinds = {wanted.calibrators.get(label, wanted.calibrator) for label in self.label_names}
        if fault := student_fault(self.active_features, wanted.without_features, wanted.calibration_slice, kinds):
            raise ValueError(fault)
        kept = student_features(self.active_features, wanted.without_features)
        for place, network, features in (
            ("train", self.train.network, self.active_features),
            ("distill", wanted.network, kept),
        ):
            if fault := context_fault(network, features):
                raise ValueError(f"{place}.network.{fault}")
        return self

    @model_validator(mode="after")
    def _workers_are_of_ray(self) -> Self:
        if self.placement.workers is not None and self.train.engine != "ray":
            raise ValueError(
                f"placement.workers with train.engine {self.train.engine}, which has none; "
                "expected train.engine ray, or no workers"
            )
        return self

    @property
    def digest(self) -> str:
        """Of all that decides what a run makes: not of where it runs, so that more memory makes nothing anew."""
        return digest_of(self.model_dump(mode="json", by_alias=True, exclude={"placement"}))

    @property
    def active_features(self) -> tuple[FeatureSpec, ...]:
        """What models are trained on; `features` also lists the deprecated ones, whose ids stay taken."""
        return active(self.features)

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)


def pipeline_name(recipe: str) -> str:
    """What a backend calls the pipeline and the experiment of a recipe."""
    return f"tidewheel-{recipe}"
