from __future__ import annotations

import pytest

from tidewheel.contracts.sampling import Range
from tidewheel.errors import ConfigError
from tidewheel.sampling.rules import Criterion, calibration_salt, criterion


def test_values_become_those_that_a_column_can_have() -> None:
    given = (7, "7", "2.5", "a", "nan", "1e400", str(2**63), None)
    assert criterion("c", given, "integer").values == (7, 7)
    assert criterion("c", given, "real").values == (7.0, 7.0, 2.5, float(2**63))
    assert criterion("c", given, "text").values == ("7", "7", "2.5", "a", "nan", "1e400", str(2**63))
    assert criterion("c", given, "text").takes_null
    assert not criterion("c", (7,), "text").takes_null


def test_bounds_of_integers_are_rounded_up_on_both_sides() -> None:
    # x >= 1.5 and x < 2.5 holds for the integer 2 alone: x >= 2 and x < 3.
    assert criterion("c", Range(at_least=1.5, below=2.5), "integer") == Criterion(None, 2, 3, False)
    assert criterion("c", Range(at_least=-1.5), "integer") == Criterion(None, -1, None, False)
    assert criterion("c", Range(below=2.5, or_null=True), "real") == Criterion(None, None, 2.5, True)


def test_text_has_no_range() -> None:
    with pytest.raises(ConfigError, match="column surface is text; expected numbers"):
        criterion("surface", Range(below=1), "text")


def test_the_salt_of_calibration_stays_a_64_bit_integer() -> None:
    for salt in (0, 2**63 - 1, -(2**63)):
        assert -(2**63) <= calibration_salt(salt) < 2**63
        assert calibration_salt(salt) != salt
