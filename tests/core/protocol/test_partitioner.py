"""The hash equals Kafka's, else one run would spread over two partitions."""

import pytest
from aiokafka.partitioner import murmur2 as kafka_murmur2
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.core.protocol.partitioner import home_of, murmur2, murmur2_of_run_id, murmur2_of_task_id, partition_of


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_it_agrees_with_the_vectors_of_kafkas_own_test(key: bytes, signed: int) -> None:
    """Values of `UtilsTest.testMurmur2` in Apache Kafka."""
    assert murmur2(key) == signed & 0xFFFFFFFF


@given(st.binary(max_size=70))
def test_it_agrees_with_another_client_on_any_key(key: bytes) -> None:
    assert murmur2(key) == kafka_murmur2(key) & 0xFFFFFFFF


@given(st.binary(min_size=24, max_size=24))
@example(b"\0" * 24)
@example(b"\xff" * 24)
@example(b"018f3c2a7b1e7c4d9a55fffe")
def test_the_way_for_run_ids_leads_to_the_same_hash(key: bytes) -> None:
    assert murmur2_of_run_id(key) == murmur2(key) == kafka_murmur2(key) & 0xFFFFFFFF


@given(st.binary(min_size=32, max_size=32))
@example(b"\0" * 32)
@example(b"\xff" * 32)
@example(b"2aa51dacfd716219ab0f68bc591b1b04")
def test_the_way_for_task_ids_leads_to_the_same_hash(key: bytes) -> None:
    assert murmur2_of_task_id(key) == murmur2(key) == kafka_murmur2(key) & 0xFFFFFFFF


@given(st.binary(max_size=40) | st.binary(min_size=24, max_size=24), st.integers(1, 1000))
def test_a_key_has_one_partition_that_exists(key: bytes, partitions: int) -> None:
    home = partition_of(key, partitions)
    assert 0 <= home < partitions
    assert home == (kafka_murmur2(key) & 0x7FFFFFFF) % partitions


def test_keys_spread_over_partitions() -> None:
    counts = [0] * 6
    for n in range(6_000):
        counts[partition_of(f"run-{n}".encode(), 6)] += 1
    assert min(counts) > 800


HOME = b"k0123456789abcdef"


def test_a_run_id_with_a_home_is_in_the_partition_of_its_home() -> None:
    for n in range(50):
        run_id = b"%024x:%s" % (n, HOME)
        assert home_of(run_id) == HOME
        assert partition_of(run_id, 24) == (kafka_murmur2(HOME) & 0x7FFFFFFF) % 24


@pytest.mark.parametrize(
    "key",
    [
        HOME,
        b"0" * 24,
        b"0" * 23 + b":" + HOME,
        b"0" * 25 + b":" + HOME,
        b"0" * 24 + b":" + HOME + b"0",
        b"0" * 24 + b":" + HOME[:-1],
        b"0" * 24 + b":K" + HOME[1:],
        b"0" * 24 + b"." + HOME,
        b"G" * 24 + b":" + HOME,
        b"0" * 24 + b":" + HOME + b"\n",
    ],
)
def test_any_other_key_is_hashed_whole(key: bytes) -> None:
    assert home_of(key) == key
    assert partition_of(key, 1000) == (kafka_murmur2(key) & 0x7FFFFFFF) % 1000
