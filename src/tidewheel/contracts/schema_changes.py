"""What may become of the registered features of a recipe. Pure: registered and wanted features in, changes out.

Of one id the name, kind, entity, buckets, transform and what a sequence is made of never change: they are what a model's
parameters mean. Its type may only widen, and it may be deprecated once and for all. So an id has one life, and whoever
reads an old bundle, dataset or report knows what its features were.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.schema import DType, FeatureKind, FeatureSpec, feature_digest

MEANING = ("kind", "entity", "num_buckets", "transform", "of", "label", "length")
WIDER = {
    DType.INT32: (DType.INT64, DType.FLOAT64),
    DType.INT64: (DType.FLOAT64,),
    DType.FLOAT32: (DType.FLOAT64,),
    DType.FLOAT64: (),
    DType.STRING: (),
}


class SchemaRecord(Contract):
    """Every feature that a recipe ever had, as of one change. Records are numbered; the last one holds.

    `by` is the run that registered it, or the command.
    """

    schema_: Literal["tidewheel/schema/v1"] = Field(default="tidewheel/schema/v1", alias="schema")
    number: int = Field(ge=1)
    time: AwareDatetime
    recipe: str
    by: str
    reason: str
    features: tuple[FeatureSpec, ...]
    feature_digest: str  # of the active ones: what datasets, bundles and servers made since then carry


class ChangeKind(StrEnum):
    ADDED = "added"
    DEPRECATED = "deprecated"
    WIDENED = "widened"
    REFUSED = "refused"


class Change(Contract):
    """One difference. `reason` is a sentence; of a refused change it ends with what to do instead."""

    kind: ChangeKind
    id: int
    name: str
    reason: str


class SchemaPlan(Contract):
    """What has to change. `features` are all features ever registered, as they are once it is applied."""

    changes: tuple[Change, ...]
    features: tuple[FeatureSpec, ...]

    @property
    def refused(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.kind is ChangeKind.REFUSED)

    @property
    def feature_digest(self) -> str:
        return feature_digest(self.features)

    def explain_refusal(self) -> str:
        """The first refused change in one line, and how many more there are."""
        first, *more = self.refused
        return first.reason + (f" (and {len(more)} more, see tidewheel schema plan)" if more else "")


def plan(registered: Sequence[FeatureSpec], wanted: Sequence[FeatureSpec]) -> SchemaPlan:
    """How the registered features become the wanted ones.

    Where any change is refused nothing may be applied, and `features` are the registered ones. A deprecated feature may
    stay in the recipe or leave it: its id stays registered.

    Args:
        registered: every feature ever registered, one an id.
        wanted: the features of the recipe, one an id; of the active ones no two have one name.
    """
    known = {feature.id: feature for feature in registered}
    free = itertools.count(max([0, *known, *(feature.id for feature in wanted)]) + 1)
    changes: list[Change] = []
    for feature in sorted(wanted, key=lambda feature: feature.id):
        if feature.id in known and (moved := _moved(feature, registered, wanted, free)):
            changes.append(moved)
        elif feature.id in known:
            changes += _differences(known[feature.id], feature, free)
        else:
            changes.append(_addition(feature, registered, wanted))
    listed = {feature.id for feature in wanted}
    changes += [_removal(feature) for feature in registered if feature.id not in listed and not feature.deprecated]
    if any(change.kind is ChangeKind.REFUSED for change in changes):
        return SchemaPlan(changes=tuple(changes), features=tuple(registered))
    after = known | {feature.id: feature for feature in wanted}
    return SchemaPlan(changes=tuple(changes), features=tuple(after[number] for number in sorted(after)))


def keeps_values(before: FeatureSpec, after: FeatureSpec) -> bool:
    """Whether whoever reads a column as `before` can read it as `after` stores it."""
    if before.dtype is after.dtype:
        return True
    return after.dtype in WIDER[before.dtype] and (after.dtype.is_integer or before.kind is FeatureKind.NUMERIC)


def _differences(before: FeatureSpec, after: FeatureSpec, free: Iterator[int]) -> list[Change]:
    """What changed of one id."""
    if reason := _why_not(before, after, free):
        return [_change(ChangeKind.REFUSED, after, reason)]
    changes = []
    if after.dtype is not before.dtype:
        changes.append(_change(ChangeKind.WIDENED, after, f"from {before.dtype.value} to {after.dtype.value}"))
    if after.deprecated and not before.deprecated:
        changes.append(_change(ChangeKind.DEPRECATED, after, f"no longer trained on or asked for; id {after.id} stays taken"))
    return changes


def _moved(
    sequence: FeatureSpec, registered: Sequence[FeatureSpec], wanted: Sequence[FeatureSpec], free: Iterator[int]
) -> Change | None:
    """The refusal of a sequence that is to go on, while the feature whose embedding it shares gets another id."""
    if not sequence.is_sequence or sequence.deprecated:
        return None
    before = [feature.id for feature in registered if feature.name == sequence.of and not feature.deprecated]
    after = [feature.id for feature in wanted if feature.name == sequence.of and not feature.deprecated]
    if before == after or not before:
        return None
    found = f"id {after[0]}" if after else "no active feature"
    reason = (
        f"{sequence.name} is of {sequence.of}, which had id {before[0]}, found {found}: what was learned for id {sequence.id} "
        f"would mean something else; list id {sequence.id} with deprecated: true, and give {sequence.name} a new id: next free "
        f"is {next(free)}"
    )
    return _change(ChangeKind.REFUSED, sequence, reason)


def _why_not(before: FeatureSpec, after: FeatureSpec, free: Iterator[int]) -> str | None:
    """Why an id may not become `after`, or None."""
    if before.name != after.name:
        return (
            f"id {before.id} belongs to {before.name} and is never given to another feature; give {after.name} a new id: "
            f"next free is {next(free)}"
        )
    changed = [
        f"{field} {_text(getattr(before, field))} to {_text(getattr(after, field))}"
        for field in MEANING
        if getattr(before, field) != getattr(after, field)
    ]
    if changed:
        return (
            f"{after.name} changed from {', '.join(changed)}: what was learned for id {before.id} would mean something else; "
            f"list id {before.id} as it was with deprecated: true, and give {after.name} a new id: next free is {next(free)}"
        )
    if not keeps_values(before, after):
        return (
            f"{after.name} changed from {before.dtype.value} to {after.dtype.value}, which is not wider: values would be "
            f"lost; keep {before.dtype.value}, or log another column and give it a new id: next free is {next(free)}"
        )
    if before.deprecated and not after.deprecated:
        return (
            f"{after.name} was deprecated as id {before.id}, and nobody checked its values since; keep id {before.id} "
            f"deprecated, and give {after.name} a new id: next free is {next(free)}"
        )
    return None


def _addition(feature: FeatureSpec, registered: Sequence[FeatureSpec], wanted: Sequence[FeatureSpec]) -> Change:
    """A new id: refused where its name is taken, or where its column could not be read any more as it was."""
    if feature.deprecated:
        return _change(ChangeKind.ADDED, feature, f"deprecated from the start: id {feature.id} stays taken")
    leaving = {other.id for other in wanted if other.deprecated}
    same_name = [other for other in registered if other.name == feature.name]
    for other in same_name:
        if not other.deprecated and other.id not in leaving:
            reason = (
                f"{feature.name} has id {other.id}, found {feature.id}; write id {other.id}, or list it as it was with "
                "deprecated: true to start anew"
            )
            return _change(ChangeKind.REFUSED, feature, reason)
        if not keeps_values(other, feature):
            reason = (
                f"column {feature.name} was {other.dtype.value} as id {other.id}, found {feature.dtype.value}: a model that "
                f"still serves could not read it; write dtype: {other.dtype.value}, or log another column"
            )
            return _change(ChangeKind.REFUSED, feature, reason)
    again = f", before as id {same_name[-1].id}" if same_name else ""
    return _change(ChangeKind.ADDED, feature, f"{feature.kind.value} {feature.dtype.value} of {feature.entity.value}{again}")


def _removal(feature: FeatureSpec) -> Change:
    reason = (
        f"{feature.name} (id {feature.id}) is registered and not in the recipe; list it with deprecated: true for one turn, "
        "then it may leave"
    )
    return _change(ChangeKind.REFUSED, feature, reason)


def _change(kind: ChangeKind, feature: FeatureSpec, reason: str) -> Change:
    return Change(kind=kind, id=feature.id, name=feature.name, reason=reason)


def _text(value: object) -> str:
    return str(value.value) if isinstance(value, StrEnum) else str(value)
