"""Addresses of logs and boards: what is wrong with one, before a library that connects to it says so in its own way."""

import re

_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]?#]+)(?::(\d{1,5}))?", re.ASCII)
PORT_MAX = 65_535


def brokers_flaw(text: str) -> str:
    """Why `HOST:PORT[,HOST:PORT]` is no list of brokers; empty if it is one. Without a port it is Kafka's own."""
    for broker in text.split(","):
        found = _BROKER.fullmatch(broker)
        if found is None:
            return "a broker is a host and a port" if broker else "a broker is missing"
        if found[2] is not None and not 1 <= int(found[2]) <= PORT_MAX:
            return f"port {found[2]} is not between 1 and {PORT_MAX}"
    return ""


def redis_flaw(url: str) -> str:
    """Why `redis://HOST:PORT/DB` is none; empty if it is one. A `unix:` address names a socket."""
    scheme, _, rest = url.partition(":")
    rest = rest.partition("?")[0]
    if scheme == "unix":
        return "" if rest.strip("/") else "the path of the socket is missing"
    if not rest.startswith("//"):
        return "the host is missing"
    place, _, database = rest.removeprefix("//").rpartition("@")[2].partition("/")
    found = _BROKER.fullmatch(place)
    if found is None:
        return "a host and a port are wanted" if place else "the host is missing"
    if found[2] is not None and not 1 <= int(found[2]) <= PORT_MAX:
        return f"port {found[2]} is not between 1 and {PORT_MAX}"
    if not re.fullmatch(r"\d{0,9}", database, re.ASCII):
        return f"the database is a number, not {database!r}"
    return ""
