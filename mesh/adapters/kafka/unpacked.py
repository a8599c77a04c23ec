"""Decompression of batches into a buffer of bounded size, whatever their producer compressed.

Ten kilobytes of zstd may hold gigabytes, and a broker that keeps the compression of producers stores them. A batch that
takes more than `UNPACKED_BYTES_MAX` bytes, or that cannot be decompressed, is not read. One record with an
`UnreadValue` replaces it, at its last offset. So it becomes a dead letter, and the records behind it are read.
"""

import struct
import threading
from collections.abc import Callable
from typing import Any, Final

from aiokafka import codec
from aiokafka.record.default_records import DefaultRecordBase, _DefaultRecordPy

from mesh.core.protocol.record import UnreadValue

UNPACKED_BYTES_MAX: Final = 16 * 1_048_576
"""Greatest size of all records of a batch. Producers limit a batch to about a megabyte before compression."""
_BUFFER_BYTES: Final = 1_048_576
"""Size of the buffer that is shared by batches of one thread up to this size, as most are."""
_HEADER_BYTES: Final = DefaultRecordBase.HEADER_STRUCT.size
_CODEC_AT: Final = DefaultRecordBase.ATTRIBUTES_OFFSET + 1
_CODECS: Final = DefaultRecordBase.CODEC_MASK
_LENGTH_AT: Final = 8
_XERIAL_HEADER_BYTES: Final = 16


class _ThreadBuffer(threading.local):
    """A buffer of each thread: the consumer of a Faust app reads in a thread of its own."""

    def __init__(self) -> None:
        self.buffer = bytearray(_HEADER_BYTES + _BUFFER_BYTES)


_own = _ThreadBuffer()


def is_packed(data: memoryview) -> bool:
    """Return whether the records of a batch are compressed."""
    return bool(data[_CODEC_AT] & _CODECS)


def unpacked(data: memoryview) -> bytes | UnreadValue:
    """Decompress a batch, or return why it is not read."""
    kind = data[_CODEC_AT] & _CODECS
    try:
        batch = _decompress(data, kind, _own.buffer) or _decompress(
            data, kind, bytearray(_HEADER_BYTES + UNPACKED_BYTES_MAX)
        )
    except (ValueError, OSError, struct.error, codec.cramjam.DecompressionError) as error:
        return UnreadValue("unparseable", f"{_compression_name(data)} cannot be unpacked: {error}")
    if batch is None:
        return UnreadValue(
            "too_large", f"{_compression_name(data)} takes more than {UNPACKED_BYTES_MAX} bytes unpacked"
        )
    return batch


def stand_in(data: memoryview, value: UnreadValue) -> Any:
    """Make the record that replaces a batch that is not read."""
    header = DefaultRecordBase.HEADER_STRUCT.unpack_from(data)
    base_offset, last_offset_delta, max_timestamp = header[0], header[6], header[8]
    append_time = bool(header[5] & DefaultRecordBase.TIMESTAMP_TYPE_MASK)
    return _DefaultRecordPy(base_offset + last_offset_delta, max_timestamp, int(append_time), None, value, [])


def _decompress(data: memoryview, kind: int, buffer: bytearray) -> bytes | None:
    """Decompress a batch into a buffer; None if it does not fit."""
    packed, room = bytes(data[_HEADER_BYTES:]), memoryview(buffer)[_HEADER_BYTES:]
    try:
        size = _xerial(packed, room) if _is_xerial(packed, kind) else _into(kind)(packed, room)
    except codec.cramjam.DecompressionError as error:
        # Only the text of the error distinguishes the reasons.
        if "failed to write whole buffer" in str(error) or "is smaller than required" in str(error):
            return None
        raise
    end = _HEADER_BYTES + size
    buffer[:_HEADER_BYTES] = data[:_HEADER_BYTES]
    buffer[_CODEC_AT] &= ~_CODECS
    struct.pack_into(">i", buffer, _LENGTH_AT, end - _LENGTH_AT - 4)
    return bytes(memoryview(buffer)[:end])


def _into(kind: int) -> Callable[[bytes, memoryview], int]:
    cramjam = codec.cramjam
    known: dict[int, Callable[[bytes, memoryview], int]] = {
        DefaultRecordBase.CODEC_GZIP: cramjam.gzip.decompress_into,
        DefaultRecordBase.CODEC_SNAPPY: cramjam.snappy.decompress_raw_into,
        DefaultRecordBase.CODEC_LZ4: cramjam.lz4.decompress_into,
        DefaultRecordBase.CODEC_ZSTD: cramjam.zstd.decompress_into,
    }
    if kind not in known:
        raise ValueError(f"unknown compression {kind}")
    return known[kind]


def _is_xerial(packed: bytes, kind: int) -> bool:
    """Return whether these are blocks of snappy with their lengths, the format of Java's clients."""
    return kind == DefaultRecordBase.CODEC_SNAPPY and bool(codec._detect_xerial_stream(packed))


def _xerial(packed: bytes, room: memoryview) -> int:
    at, size = _XERIAL_HEADER_BYTES, 0
    while at < len(packed):
        (length,) = struct.unpack_from(">i", packed, at)
        if not 0 <= length <= len(packed) - at - 4:
            raise ValueError(f"a block of {length} bytes is longer than what is left")
        size += codec.cramjam.snappy.decompress_raw_into(packed[at + 4 : at + 4 + length], room[size:])
        at += 4 + length
    return size


def _compression_name(data: memoryview) -> str:
    header = DefaultRecordBase.HEADER_STRUCT.unpack_from(data)
    first, last = header[0], header[0] + header[6]
    return f"the batch at offsets {first} to {last}" if last > first else "the batch of this record"
