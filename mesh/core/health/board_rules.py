"""Judges a Redis server that holds the board, from its INFO."""

from collections.abc import Mapping
from typing import Final

from mesh.core.health.finding import ERROR, NOTE, OK, WARNING, Finding

NOEVICTION: Final = "noeviction"
FULL_SHARE: Final = 0.9
"""Part of `maxmemory` from which writes will soon be refused."""


def judge_redis(info: Mapping[str, str]) -> list[Finding]:
    """Judge memory policy, persistence, role and free memory."""
    found: list[Finding] = []
    policy, maxmemory = info.get("maxmemory_policy", NOEVICTION), int(info.get("maxmemory", "0"))
    if policy != NOEVICTION:
        level = ERROR if maxmemory else WARNING
        what = "Redis removes values of the board when its memory is full"
        fix = f"redis-cli CONFIG SET maxmemory-policy {NOEVICTION}; write it to redis.conf as well"
        found.append(Finding(level, "board", what, f"maxmemory-policy {NOEVICTION}", policy, fix))
    used = int(info.get("used_memory", "0"))
    if maxmemory and used > FULL_SHARE * maxmemory:
        what = "the memory of Redis is almost full: soon it refuses writes, or removes values"
        got = f"{used:,} of {maxmemory:,} bytes"
        found.append(Finding(ERROR, "board", what, "below 90 % of maxmemory", got, "raise maxmemory, or `mesh gc`"))
    if info.get("aof_enabled") == "0":
        what = "a restart of Redis loses the last values; the mesh then rebuilds the board from mesh.board"
        fix = "redis-cli CONFIG SET appendonly yes; write it to redis.conf as well"
        found.append(Finding(NOTE, "board", what, "appendonly yes", "no", fix))
    if info.get("aof_last_write_status", "ok") != "ok" or info.get("rdb_last_bgsave_status", "ok") != "ok":
        what = "Redis could not write its file"
        found.append(Finding(ERROR, "board", what, "ok", "err", "look at the disk and the log of the Redis server"))
    if info.get("role") in ("slave", "replica"):
        what = "the board is on a replica, which takes no writes"
        found.append(Finding(ERROR, "board", what, "role master", info["role"], "name the primary with --board"))
    return found or [Finding(OK, "board", f"Redis {info.get('redis_version', '?')} keeps every value")]
