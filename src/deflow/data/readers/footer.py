"""What a Parquet file's footer says of its columns, read without Arrow.

Arrow aborts the whole process where a column's account in the footer contradicts itself (parquet's
C++ errors pass through `RowGroupMetaData.column` uncaught), so it is read here: the file's end is a
`FileMetaData` of parquet.thrift in Thrift's compact protocol.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

_END = struct.Struct("<I4s")
_DEEP = 32

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)

_ROW_GROUPS, _COLUMNS, _META_DATA, _NUM_VALUES, _UNCOMPRESSED = 4, 1, 3, 5, 6
"""Fields of FileMetaData, RowGroup, ColumnChunk and (the last two) ColumnMetaData."""


def column_sizes(path: Path) -> list[tuple[int, int]]:
    """For each leaf column the numbers that it holds in all row groups, and its uncompressed bytes.

    Raises:
        ValueError, LookupError, TypeError, OSError: the footer is damaged.
    """
    with path.open("rb") as file:
        end = file.seek(-_END.size, os.SEEK_END)
        length, magic = _END.unpack(file.read(_END.size))
        if magic != b"PAR1" or length > end:
            raise ValueError("there is no footer at its end")
        file.seek(end - length)
        document = _Compact(file.read(length)).structure()
    totals: list[tuple[int, int]] = []
    for group in document[_ROW_GROUPS]:
        chunks = [column[_META_DATA] for column in group[_COLUMNS]]
        sizes = [(chunk[_NUM_VALUES], chunk[_UNCOMPRESSED]) for chunk in chunks]
        if min(map(min, sizes), default=0) < 0:
            raise ValueError("a column holds less than nothing")
        totals = totals or [(0, 0)] * len(sizes)
        totals = [(a + c, b + d) for (a, b), (c, d) in zip(totals, sizes, strict=True)]
    return totals


class _Compact:
    """A value after another of Thrift's compact protocol; a structure is a dictionary of fields."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def structure(self, depth: int = 0) -> dict[int, Any]:
        if depth > _DEEP:
            raise ValueError("its footer is nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            if number in fields:  # Readers differ in which of the two they take.
                raise ValueError("its footer names a field twice")
            kind = head & 15
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            return self._take(self._length())
        if kind == _STRUCT:
            return self.structure(depth + 1)
        if kind in (_LIST, _SET):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._length()
            return [self._value(head & 15, depth + 1) for _ in range(size)]
        if kind == _MAP:
            size = self._length()
            kinds = self._byte() if size else 0
            return [
                (self._value(kinds >> 4, depth + 1), self._value(kinds & 15, depth + 1))
                for _ in range(size)
            ]
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind == _DOUBLE:
            return self._take(8)
        raise ValueError(f"its footer holds a value of an unknown kind, {kind}")

    def _byte(self) -> int:
        self._place += 1
        return self._content[self._place - 1]

    def _take(self, size: int) -> bytes:
        self._place += size
        if self._place > len(self._content):
            raise ValueError("its footer is cut short")
        return self._content[self._place - size : self._place]

    def _length(self) -> int:
        """An unsigned number, seven bits a byte, the lowest first."""
        found = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found
        raise ValueError("its footer holds a number without an end")

    def _integer(self) -> int:
        """A signed number: 0, -1, 1, -2, ... are written as 0, 1, 2, 3, ..."""
        found = self._length()
        return found >> 1 ^ -(found & 1)
