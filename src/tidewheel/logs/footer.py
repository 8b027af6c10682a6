"""Parquet footers whose bytes depend on the data alone, whoever wrote them."""

from __future__ import annotations

from pathlib import Path

# Thrift's compact protocol, as the Parquet format uses it: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = range(1, 14)
# FileMetaData.row_groups (4) . columns (1) . meta_data (3) . encodings (2)
_ENCODINGS = (4, 1, 3, 2)
_MAGIC = b"PAR1"


def sort_encodings(path: Path) -> None:
    """Put the encodings that the footer lists for each column into ascending order, in place; the size stays.

    They are a set: readers do not care. Spark's writer lists them in the order of a Java hash set of enums, which is another
    one in every JVM, so two executors write equal pages with unequal bytes around them.

    Raises:
        ValueError: not a Parquet file with a plain footer.
    """
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or length + 12 > size:
            raise ValueError(f"{path}: no plain Parquet footer; expected a whole file that ends with PAR1")
        file.seek(size - 8 - length)
        found = bytearray(file.read(length))
        footer = _Footer(found)
        footer.walk(_STRUCT, ())
        if footer.is_changed:
            file.seek(size - 8 - length)
            file.write(found)


class _Footer:
    """Reads the footer once, from the front, and sorts the encodings that it comes by."""

    def __init__(self, data: bytearray) -> None:
        self.data, self.place, self.is_changed = data, 0, False

    def walk(self, kind: int, fields: tuple[int, ...]) -> None:
        """Pass one value; `fields` are the numbers of the fields that lead to it."""
        if kind in (_BYTE, _TRUE, _FALSE):
            self.place += 1
        elif kind in (_I16, _I32, _I64):
            self._varint()
        elif kind in (_DOUBLE, _UUID):
            self.place += 8 if kind == _DOUBLE else 16
        elif kind == _BINARY:
            length = self._varint()
            self.place += length
        elif kind in (_LIST, _SET):
            self._walk_list(fields)
        elif kind == _STRUCT:
            self._walk_struct(fields)
        else:
            raise ValueError(f"type {kind} at byte {self.place} of a Parquet footer; expected one that the format uses")

    def _walk_struct(self, fields: tuple[int, ...]) -> None:
        number = 0
        while header := self._byte():
            kind, step = header & 0x0F, header >> 4
            if step:
                number += step
            else:
                zigzag = self._varint()
                number = (zigzag >> 1) ^ -(zigzag & 1)
            if kind not in (_TRUE, _FALSE):  # a field's header says which, and nothing follows
                self.walk(kind, (*fields, number))

    def _walk_list(self, fields: tuple[int, ...]) -> None:
        header = self._byte()
        kind, count = header & 0x0F, header >> 4
        if count == 15:
            count = self._varint()
        start = self.place
        for _ in range(count):
            self.walk(kind, fields)
        if fields == _ENCODINGS and self.place - start == count:  # one byte each, so bytes sort as the numbers do
            ordered = bytes(sorted(self.data[start : self.place]))
            self.is_changed |= ordered != self.data[start : self.place]
            self.data[start : self.place] = ordered

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
