"""Which partition a key belongs to: murmur2, as in Kafka's Java client (`Utils.murmur2`, `BuiltInPartitioner`).

Every producer of the mesh must agree on it, else one run would lie in two partitions and lose its order.
"""

from functools import lru_cache
from struct import unpack_from
from typing import Final

_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit murmur2 hash of `data` with Kafka's seed 0x9747b28c."""
    length = len(data)
    blocks = length >> 2
    h = 0x9747B28C ^ length
    for k in unpack_from(f"<{blocks}I", data):
        k = k * _M & _MASK
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    tail = data[blocks << 2 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key` in a topic of `partitions` partitions (`toPositive(murmur2) % n`)."""
    hashed = _remembered(key) if len(key) <= _REMEMBERED_BYTES_MAX else murmur2(key)
    return (hashed & 0x7FFFFFFF) % partitions


_REMEMBERED_BYTES_MAX: Final = 128
_remembered = lru_cache(maxsize=16_384)(murmur2)
"""A run's key is asked for with each of its records. Keys longer than a run id may be are not kept."""
