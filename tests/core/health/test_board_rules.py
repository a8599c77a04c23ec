"""A Redis server that loses values, or soon takes none, is found by its INFO."""

import pytest

from mesh.core.health.board_rules import judge_redis
from mesh.core.health.finding import ERROR, NOTE, OK, WARNING

SAFE = {
    "redis_version": "7.2.4",
    "maxmemory_policy": "noeviction",
    "maxmemory": "1000",
    "used_memory": "100",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "role": "master",
}


@pytest.mark.parametrize(
    ("changed", "level"),
    [
        ({}, OK),
        ({"maxmemory_policy": "allkeys-lru"}, ERROR),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": "0"}, WARNING),
        ({"used_memory": "950"}, ERROR),
        ({"used_memory": "950", "maxmemory": "0"}, OK),
        ({"aof_enabled": "0"}, NOTE),
        ({"rdb_last_bgsave_status": "err"}, ERROR),
        ({"aof_last_write_status": "err"}, ERROR),
        ({"role": "slave"}, ERROR),
    ],
)
def test_each_danger_is_one_finding(changed: dict[str, str], level: str) -> None:
    (found,) = judge_redis(SAFE | changed)
    assert (found.level, found.where) == (level, "board")
    assert bool(found.next) == (level != OK)
