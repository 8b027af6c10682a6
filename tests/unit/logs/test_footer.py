"""Equal data gives equal bytes, whatever order a writer's footer lists encodings in."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.logs.footer import sort_encodings

TABLE = pa.table({"key": [3, 1, 2, 1], "word": ["a", None, "a", "b"], "share": [0.5, 0.25, None, 1.0]})
# Of a dictionary column as pyarrow writes it: PLAIN 0, RLE 3, RLE_DICTIONARY 8, each number n as 2n.
LISTED = bytes([0, 6, 16])
FIELD = bytes([0x19, 0x35])  # the second field, a list of three int32


def footer_of(written: bytes) -> bytes:
    return written[-8 - int.from_bytes(written[-8:-4], "little") :]


def with_encodings(written: bytes, listed: bytes) -> bytes:
    footer = footer_of(written)
    assert FIELD + LISTED in footer
    return written.removesuffix(footer) + footer.replace(FIELD + LISTED, FIELD + listed)


@pytest.fixture
def written(tmp_path: Path) -> bytes:
    pq.write_table(TABLE, tmp_path / "a.parquet", row_group_size=2)
    return (tmp_path / "a.parquet").read_bytes()


@pytest.mark.parametrize("order", list(itertools.permutations(LISTED)))
def test_every_order_of_the_encodings_becomes_the_same_file(written: bytes, order: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    path.write_bytes(with_encodings(written, bytes(order)))
    sort_encodings(path)
    assert path.read_bytes() == with_encodings(written, bytes(sorted(LISTED)))
    assert pq.read_table(path).equals(TABLE)


def test_a_file_in_order_is_left_alone(written: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sorted.parquet"
    path.write_bytes(with_encodings(written, bytes(sorted(LISTED))))
    before = path.read_bytes(), path.stat().st_mtime_ns
    sort_encodings(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize("kept", [0, 3, 7, 100])
def test_a_file_without_a_whole_footer_is_refused_by_name(written: bytes, kept: int, tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(written[:kept])
    with pytest.raises(ValueError, match=r"broken\.parquet: no plain Parquet footer"):
        sort_encodings(path)
