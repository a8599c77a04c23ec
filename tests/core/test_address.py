"""Invalid addresses are reported before a connection is tried."""

import pytest

from mesh.core.address import brokers_flaw, http_address, redis_flaw
from mesh.core.errors import InvalidInput


@pytest.mark.parametrize("text", ["h", "h:1", "h:65535", "a-b.c:9092,d:9093", "127.0.0.1:9092", "[::1]:9092", "[::1]"])
def test_a_list_of_brokers(text: str) -> None:
    assert brokers_flaw(text) == ""


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("", "missing"),
        ("h:1,", "missing"),
        ("h:port", "a host and a port"),
        ("h:1:2", "a host and a port"),
        ("[::1", "a host and a port"),
        ("a b:1", "a host and a port"),
        ("h:1/x", "a host and a port"),
        ("u:p@h:1", "a host and a port"),
        ("h:99999", "port 99999"),
        ("h:0", "port 0"),
        ("h:²", "a host and a port"),
    ],
)
def test_no_list_of_brokers(text: str, flaw: str) -> None:
    assert flaw in brokers_flaw(text)


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h:6379/0", "rediss://u:p%40@h:1/15", "redis://[::1]:6379", "unix:///run/redis.sock"]
)
def test_an_address_of_redis(url: str) -> None:
    assert redis_flaw(url) == ""


@pytest.mark.parametrize(
    ("url", "flaw"),
    [
        ("redis://", "host"),
        ("redis://h:port", "port"),
        ("redis://h:99999", "port 99999"),
        ("redis://h:0", "port 0"),
        ("redis://[::1", "a host and a port"),
        ("redis://h/nine", "'nine'"),
        ("redis://a b:1", "a host and a port"),
        ("unix:", "socket"),
    ],
)
def test_no_address_of_redis(url: str, flaw: str) -> None:
    assert flaw in redis_flaw(url)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("9464", "127.0.0.1", 9464),
        ("0", "127.0.0.1", 0),
        ("0.0.0.0:9464", "0.0.0.0", 9464),
        ("[::]:9464", "::", 9464),
        ("mesh.internal:65535", "mesh.internal", 65535),
    ],
)
def test_an_address_to_listen_on(text: str, host: str, port: int) -> None:
    assert http_address(text) == (host, port)


@pytest.mark.parametrize("text", ["", "http", "65536", "host:", ":9464", "http://host:1", "host:1/x", "-1", "9464 "])
def test_no_address_to_listen_on(text: str) -> None:
    with pytest.raises(InvalidInput, match="PORT or HOST:PORT"):
        http_address(text)
