"""The partition of a key: murmur2, as in Kafka's Java client (`Utils.murmur2`, `BuiltInPartitioner`).

Every producer of the mesh must agree on it, else one run would spread over two partitions and lose its order.

The id of a run whose ingress topic has `order: key` ends with its *home*: `k` and a hash of the ordering key. The home
alone determines the partition of such an id. So runs with equal ordering keys share a partition, and every reader finds
it from the id.
"""

import re
from functools import lru_cache
from struct import unpack_from
from typing import Any, Final

import orjson

_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_SEED: Final = 0x9747B28C

_HOME: Final = re.compile(rb"[0-9a-f]{24}:(k[0-9a-f]{16})")
"""A run id that contains its home."""

# A run id made by the mesh has 24 hex digits, six words. A task id has 32, eight words. Even and odd words are mixed
# together, each in 64 bits of one number, so that no product reaches its neighbour.
_RUN_ID_BYTES: Final = 24
_LANES: Final = _MASK << 128 | _MASK << 64 | _MASK
_LOW_BYTES: Final = 0xFF << 128 | 0xFF << 64 | 0xFF
_TASK_ID_BYTES: Final = 32
_TASK_LANES: Final = _MASK << 192 | _LANES
_TASK_LOW_BYTES: Final = 0xFF << 192 | _LOW_BYTES


def murmur2(data: bytes) -> int:
    """Return the 32-bit murmur2 hash of `data` with Kafka's seed."""
    length = len(data)
    blocks = length >> 2
    h = _SEED ^ length
    for k in unpack_from(f"<{blocks}I", data):
        k = k * _M & _MASK
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    tail = data[blocks << 2 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def murmur2_of_run_id(data: bytes) -> int:
    """Return `murmur2` of 24 bytes, in two thirds of the time."""
    words = int.from_bytes(data, "little")
    even = (words & _LANES) * _M & _LANES
    even = (even ^ even >> 24 & _LOW_BYTES) * _M
    odd = (words >> 32 & _LANES) * _M & _LANES
    odd = (odd ^ odd >> 24 & _LOW_BYTES) * _M
    h = ((_SEED ^ _RUN_ID_BYTES) * _M ^ even) & _MASK
    h = (h * _M ^ odd) & _MASK
    h = (h * _M ^ even >> 64) & _MASK
    h = (h * _M ^ odd >> 64) & _MASK
    h = (h * _M ^ even >> 128) & _MASK
    h = (h * _M ^ odd >> 128) & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def murmur2_of_task_id(data: bytes) -> int:
    """Return `murmur2` of 32 bytes, in half of the time."""
    words = int.from_bytes(data, "little")
    even = (words & _TASK_LANES) * _M & _TASK_LANES
    even = (even ^ even >> 24 & _TASK_LOW_BYTES) * _M
    odd = (words >> 32 & _TASK_LANES) * _M & _TASK_LANES
    odd = (odd ^ odd >> 24 & _TASK_LOW_BYTES) * _M
    h = ((_SEED ^ _TASK_ID_BYTES) * _M ^ even) & _MASK
    h = (h * _M ^ odd) & _MASK
    h = (h * _M ^ even >> 64) & _MASK
    h = (h * _M ^ odd >> 64) & _MASK
    h = (h * _M ^ even >> 128) & _MASK
    h = (h * _M ^ odd >> 128) & _MASK
    h = (h * _M ^ even >> 192) & _MASK
    h = (h * _M ^ odd >> 192) & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def key_of(value: Any) -> bytes | None:
    """Return a payload's field as a record key: text unchanged, any other value as JSON; None for null."""
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def home_of(key: bytes) -> bytes:
    """Return the part of a key that determines its partition: the home in a run id, else the whole key."""
    found = _HOME.fullmatch(key)
    return key if found is None else found[1]


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of `key` among `partitions` (`toPositive(murmur2) % n` of its home)."""
    length = len(key)
    if length == _TASK_ID_BYTES:  # a task id is needed once, so it is not cached
        hashed = murmur2_of_task_id(key)
    else:
        hashed = _cached_hash(key) if length <= _REMEMBERED_BYTES_MAX else murmur2(key)
    return (hashed & 0x7FFFFFFF) % partitions


_REMEMBERED_BYTES_MAX: Final = 128


@lru_cache(maxsize=16_384)  # every record of a run needs the partition of its id
def _cached_hash(key: bytes) -> int:
    return murmur2_of_run_id(key) if len(key) == _RUN_ID_BYTES else murmur2(home_of(key))
