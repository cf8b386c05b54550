"""Reading Arrow's own files without trusting them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from deflow.core.errors import DeFlowError
from deflow.data.guards import require_memory
from deflow.data.readers.guards import one_error

_MAGIC = b"ARROW1\0\0"
_RECORD_BATCH = 3
_COMPRESSION = 3


def read_ipc(path: Path) -> Any:
    """The table in an uncompressed Arrow file.

    Compressed ones are refused: what they inflate to is known only once it is in memory. The
    batches are judged and read as they lie one after another; the footer, which could lead to
    others, must count as many.

    Raises:
        DeFlowError: absent, damaged, compressed, or too large for the memory.
    """
    import pyarrow as pa

    with one_error(path, "Arrow file"):
        require_memory(path, path.stat().st_size)
        content = pa.py_buffer(path.read_bytes())
        if content[: len(_MAGIC)].to_pybytes() != _MAGIC:
            raise DeFlowError(f"{path} is no Arrow file; fetch or make it again.")
        stream, batches = content[len(_MAGIC) :], 0
        for message in pa.ipc.MessageReader.open_stream(stream):
            batches += message.type == "record batch"
            if message.type == "record batch" and _is_compressed(message.metadata.to_pybytes()):
                raise DeFlowError(f"{path} is compressed, which is not read here; write it plain.")
            if message.type not in ("schema", "record batch"):
                raise DeFlowError(f"{path} holds a {message.type}, which is not read here.")
        if pa.ipc.open_file(content).num_record_batches != batches:
            raise DeFlowError(f"{path} is damaged: its footer counts other batches; make it again.")
        return pa.ipc.open_stream(stream).read_all()


def _is_compressed(metadata: bytes) -> bool:
    """Whether a record batch's header (a FlatBuffer, Arrow's Message.fbs) names a codec."""
    message = struct.unpack_from("<I", metadata, 0)[0]
    kind = _field(metadata, message, 1)
    header = _field(metadata, message, 2)
    if not kind or not header or metadata[kind] != _RECORD_BATCH:
        raise ValueError("a record batch without a header")
    batch = header + struct.unpack_from("<I", metadata, header)[0]
    return _field(metadata, batch, _COMPRESSION) != 0


def _field(buffer: bytes, table: int, index: int) -> int:
    """Where a field of a FlatBuffer's table lies; 0 where it is absent."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, vtable)[0]
    place = 4 + 2 * index
    if place + 2 > size:
        return 0
    offset = struct.unpack_from("<H", buffer, vtable + place)[0]
    return table + offset if offset else 0
