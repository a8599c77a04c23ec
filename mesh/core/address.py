"""Addresses of logs and boards, checked before a library reports an invalid one in its own words."""

import re

from mesh.core.errors import InvalidInput

_NAME = r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]?#]+)"
_HOST = re.compile(rf"{_NAME}(?::(\d{{1,5}}))?", re.ASCII)
PORT_MAX = 65_535
LOCALHOST = "127.0.0.1"
_HTTP = re.compile(rf"(?:{_NAME}:)?(\d{{1,5}})", re.ASCII)


def http_address(text: str) -> tuple[str, int]:
    """Return host and port of `PORT` or `HOST:PORT`. Port 0 is any free one. Raises InvalidInput.

    Without a host it is this machine alone: what a process shows is not meant for strangers.
    """
    found = _HTTP.fullmatch(text)
    if found is None or int(found[2]) > PORT_MAX:
        raise InvalidInput(
            "this is no address to listen on",
            code="bad_value",
            where="setting 'http'",
            expected=f"PORT or HOST:PORT, with a port from 0 to {PORT_MAX}",
            got=repr(text),
            remedy="Write --http 9464, or --http 0.0.0.0:9464 for other machines",
        )
    return (found[1] or LOCALHOST).strip("[]"), int(found[2])


def host_and_port(host: str, port: int) -> str:
    """Return `HOST:PORT`, as `http_address` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def brokers_flaw(text: str) -> str:
    """Return the flaw of a list of brokers, `HOST:PORT[,HOST:PORT]`; "" for none. The port defaults to Kafka's."""
    return next(filter(None, (_flaw("broker", broker) for broker in text.split(","))), "")


def redis_flaw(url: str) -> str:
    """Return the flaw of an address `redis://HOST:PORT/DB`; "" for none. A `unix:` address names a socket."""
    scheme, _, rest = url.partition(":")
    rest = rest.partition("?")[0]
    if scheme == "unix":
        return "" if rest.strip("/") else "the path of the socket is missing"
    if not rest.startswith("//"):
        return "the host is missing"
    host, _, database = rest.removeprefix("//").rpartition("@")[2].partition("/")
    flaw = _flaw("host", host)
    if flaw or re.fullmatch(r"\d{0,9}", database, re.ASCII):
        return flaw
    return f"the database is a number, not {database!r}"


def _flaw(what: str, text: str) -> str:
    found = _HOST.fullmatch(text)
    if found is None:
        return f"expected a host and a port for a {what}" if text else f"a {what} is missing"
    if found[2] is not None and not 1 <= int(found[2]) <= PORT_MAX:
        return f"port {found[2]} is not between 1 and {PORT_MAX}"
    return ""
