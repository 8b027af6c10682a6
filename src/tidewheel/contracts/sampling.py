"""How training rows are chosen: the recipe's section `sample`, and the plan that it resolves to for one window."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, model_validator

from tidewheel.contracts.base import Contract, digest_of

NEGATIVES, POSITIVES, PROTECTED = "negatives", "positives", "never_downsample"  # rules that every plan may have
MICRO = 1_000_000
AGE = "days_before_end"  # not a column of the log: whole days from event_time to the end of the window, 0 on the last day


def _probability(value: float) -> float:
    if not 0.0 < value <= 1.0:
        hint = f". Did you mean {value / 100:g}?" if 1.0 < value <= 100.0 else ""
        raise ValueError(f"expected a probability in (0, 1]{hint}")
    return value


Rate = Annotated[float, AfterValidator(_probability)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
RuleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Bound = Annotated[float, Field(ge=-(2.0**53), le=2.0**53)]  # so that it is exact as an integer, too


# --- which rows -------------------------------------------------------------------------------------------------------


class Range(Contract):
    """Numbers x with at_least <= x < below, either bound alone too. `or_null`: also rows without a number, or with NaN."""

    at_least: Bound | None = None
    below: Bound | None = None
    or_null: bool = False

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if self.at_least is None and self.below is None:
            raise ValueError("a range needs at_least, below or both")
        if self.at_least is not None and self.below is not None and self.at_least >= self.below:
            raise ValueError(f"at_least {self.at_least:g} is not under below {self.below:g}; no number is between them")
        return self


# A list: rows whose column is one of its values; null in it stands for rows without one. Else a range.
Condition = tuple[int | str | None, ...] | Range


class Rows(Contract):
    """Rows that meet all of it: labels that are 1 (`all_of`, at least one of `any_of`) or 0 (`none_of`), and columns.

    `where` has a condition a column: `surface: [feed, search]`, `user_tenure_days: {below: 30, or_null: true}`.
    """

    name: RuleName
    all_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    where: dict[str, Condition] = {}

    @property
    def labels(self) -> frozenset[str]:
        return frozenset((*self.all_of, *self.any_of, *self.none_of))

    @property
    def is_everything(self) -> bool:
        return not (self.labels or self.where)


class Rule(Rows):
    """Training rows that meet it, and no rule before it, are kept with probability `rate`."""

    rate: Rate

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.is_everything:
            raise ValueError(f"rule {self.name} says nothing about its rows; expected all_of, any_of, none_of or where")
        denied = set(self.none_of)
        if denied & set(self.all_of) or (self.any_of and denied >= set(self.any_of)):
            raise ValueError(f"rule {self.name} wants and denies {', '.join(sorted(denied & self.labels))}; no row can meet it")
        return self


class Group(Contract):
    """Rows outside the population: counted, in no split, and in no estimate."""

    name: RuleName
    where: dict[str, Condition] = Field(min_length=1)


class Cap(Contract):
    """At most about `rows` training rows for each value of `column`.

    It lowers the rates of a group's rows by min(1, rows / expected kept rows), so it holds in expectation and weights stay
    exactly 1 / probability. Rows of `never_downsample` neither count nor shrink.
    """

    column: str
    rows: int = Field(ge=1)


# --- presets: what each trades stands in tidewheel.sampling.presets ------------------------------------------------------


class AllPositives(Contract):
    kind: Literal["all_positives"] = "all_positives"
    negative_rate: Rate = 0.1


class Balanced(Contract):
    kind: Literal["balanced"] = "balanced"
    negatives_per_positive: float = Field(default=1.0, gt=0)
    min_rate: Rate = 0.001


class NicheBoost(Contract):
    kind: Literal["niche_boost"] = "niche_boost"
    column: str = "item_id"
    niche_share: Rate = 0.5  # of the column's values, the rarest
    min_rate: Rate = 0.05


class TrendAdjusted(Contract):
    kind: Literal["trend_adjusted"] = "trend_adjusted"
    half_life_days: float = Field(default=3.0, gt=0)
    min_rate: Rate = 0.05


PresetName = Literal["all_positives", "balanced", "niche_boost", "trend_adjusted"]
AnyPreset = Annotated[AllPositives | Balanced | NicheBoost | TrendAdjusted, Field(discriminator="kind")]


def _with_defaults(preset: Any) -> Any:
    """`preset: balanced` is `preset: {kind: balanced}`."""
    return {"kind": preset} if isinstance(preset, str) else preset


Preset = Annotated[AnyPreset, BeforeValidator(_with_defaults, json_schema_input_type=PresetName | AnyPreset)]


# --- the section of the recipe ---------------------------------------------------------------------------------------------


class SampleConfig(Contract):
    """Which rows are kept. Evaluation, calibration and randomized rows all are; randomized rows are always apart.

    A training row's rate is, in this order: 1 if it has a label of `never_downsample`; that of the first of `rules` that
    it meets; what `preset` says; `negative_rate` without any positive label, else 1. `caps` lower it. Rows of an `exclude`
    group are in no split, whatever their labels: totals are estimated for the rest. Calibration rows are a share of the
    last `calibration_days` before evaluation, taken out of training. `engine: spark` is for tables beyond one machine.
    """

    engine: Literal["arrow", "spark"] = "arrow"
    salt: int = Field(default=0, ge=-(2**63), lt=2**63)
    exclude: tuple[Group, ...] = ()
    never_downsample: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    preset: Preset | None = None
    negative_rate: Rate = 1.0
    caps: tuple[Cap, ...] = ()
    calibration_share: Share = 0.1
    calibration_days: int = Field(default=7, ge=1)

    @property
    def labels(self) -> frozenset[str]:
        """Every label that it speaks of."""
        return frozenset(self.never_downsample).union(*(rule.labels for rule in self.rules))

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Self:
        names = [*(group.name for group in self.exclude), *(rule.name for rule in self.rules)]
        if taken := sorted(name for name in names if name.startswith((NEGATIVES, POSITIVES, PROTECTED))):
            raise ValueError(f"name {taken[0]} is taken by rules of the plan; choose another")
        for what, values in (("name", names), ("cap of column", [cap.column for cap in self.caps])):
            if repeated := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"{what} {repeated[0]} is used twice")
        for rule in self.rules:
            wanted = set(self.never_downsample) & {*rule.all_of, *rule.any_of}
            if wanted and rule.rate < 1.0:
                raise ValueError(
                    f"rule {rule.name} keeps rows of {', '.join(sorted(wanted))} with rate {rule.rate:g}, but never_downsample "
                    "has it: take it out of one of them, or set the rate to 1"
                )
        if self.preset is not None and self.negative_rate != 1.0:
            raise ValueError(
                f"preset {self.preset.kind} and negative_rate {self.negative_rate:g} both say how negatives are kept; "
                "take one out (all_positives has a negative_rate of its own)"
            )
        return self


# --- what it resolves to -----------------------------------------------------------------------------------------------------


class PlanRule(Rows):
    """A rule with its final rate. 0: the row is outside the population. Protected: no cap lowers the rate."""

    rate: float = Field(ge=0.0, le=1.0)
    is_protected: bool = False

    @property
    def rate_micro(self) -> int:
        """The rate in millionths, so that sums of it do not depend on their order."""
        return round(self.rate * MICRO)


class PlanCap(Cap):
    """A cap on the rows of `rules`, whose factor is nowhere under `min_factor`."""

    rules: tuple[str, ...]
    min_factor: Share = 0.0


class SamplePlan(Contract):
    """Everything that decides about a row, once the data were counted: each executor reads this and nothing else.

    The first rule that a row meets is its rule; the last one meets every row. `facts` are the counts that the preset saw.
    """

    salt: int
    window_end: AwareDatetime
    eval_start: AwareDatetime
    calibration_start: AwareDatetime
    calibration_share: Share
    rules: tuple[PlanRule, ...] = Field(min_length=1)
    caps: tuple[PlanCap, ...] = ()
    facts: dict[str, int] = {}

    @property
    def digest(self) -> str:
        return digest_of(self)
