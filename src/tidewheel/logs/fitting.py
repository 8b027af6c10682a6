"""A log's column in the type that its feature declares: null where a value does not fit, and where that was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tidewheel.contracts.schema import DType, FeatureSpec
from tidewheel.errors import ContractError

if TYPE_CHECKING:
    from pyspark.sql import Column

UNFIT_PREFIX = "_unfit_"  # no feature's name begins so
MAX_FLOAT32 = 3.4028234663852886e38
MAX_FLOAT64 = 1.7976931348623157e308
SQL_TYPES = {
    DType.INT32: "int",
    DType.INT64: "bigint",
    DType.FLOAT32: "float",
    DType.FLOAT64: "double",
    DType.STRING: "string",
}
INTEGERS = ("tinyint", "smallint", "int", "bigint")  # narrow to wide
FRACTIONS = ("float", "double", "decimal")
NUMBERS = frozenset({*INTEGERS, *FRACTIONS, "boolean", "void"})
TEXTS = frozenset({"string", "date", "timestamp", "timestamp_ntz", "binary"})


def fitted(feature: FeatureSpec, found: str) -> Column:
    """The column of a feature in its type; `found` is the column's type in the log, as the engine calls it.

    A number without fraction is named by a vocabulary as the integer that it is: 3.0 is "3", as a server would ask.

    Raises:
        ContractError: no value of the log's type could be one of the feature's.
    """
    from pyspark.sql import functions as F

    has = _base(found)
    if has not in (NUMBERS | TEXTS if feature.dtype is DType.STRING else NUMBERS):
        raise ContractError(
            f"column {feature.name} of the log: found {found}, expected {feature.dtype.value} (feature {feature.id}); "
            "correct dtype in the recipe, or the log"
        )
    value, target = F.col(feature.name), SQL_TYPES[feature.dtype]
    if has in FRACTIONS and (feature.dtype is DType.STRING or feature.dtype.is_integer):
        whole = F.when(value == F.floor(value), value)
        if feature.dtype is DType.STRING:
            return F.coalesce(whole.try_cast("bigint").cast("string"), value.cast("string"))
        return whole.try_cast(target)
    if has in FRACTIONS:  # NaN and infinities are no values; many tools write NaN for null
        value = F.when(F.abs(value) <= (MAX_FLOAT32 if feature.dtype is DType.FLOAT32 else MAX_FLOAT64), value)
    return value.try_cast(target)


def unfit(features: Iterable[FeatureSpec], types: dict[str, str]) -> list[Column]:
    """One column of booleans for each feature whose type may lose a value: where the log has one and the feature has none.

    They are called `_unfit_<feature>`, and which there are does not depend on the log. NaN is no value.
    """
    from pyspark.sql import functions as F

    found = []
    for feature in features:
        has = _base(types[feature.name])
        if feature.dtype not in (DType.INT32, DType.INT64, DType.FLOAT32):
            continue
        if not _may_lose(feature.dtype, has):
            found.append(F.lit(False).alias(UNFIT_PREFIX + feature.name))
        else:
            given = F.col(feature.name)
            is_given = given.isNotNull() & ~F.isnan(given.cast("double")) if has in FRACTIONS else given.isNotNull()
            found.append((is_given & fitted(feature, types[feature.name]).isNull()).alias(UNFIT_PREFIX + feature.name))
    return found


def _may_lose(dtype: DType, has: str) -> bool:
    """Whether some value of the log's type has no place in the feature's."""
    if has in FRACTIONS:
        return dtype.is_integer or (dtype is DType.FLOAT32 and has != "float")
    return has == "bigint" and dtype is DType.INT32


def _base(found: str) -> str:
    """`decimal` of `decimal(10,2)`, `array` of `array<int>`."""
    return found.split("(")[0].split("<")[0]
