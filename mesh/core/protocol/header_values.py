"""Values of headers in plain form ⇄ parts of an event."""

from typing import Any, Final

from mesh.core.protocol.event import (
    FAULT_TEXT_BYTES_MAX,
    LIFETIME_DIGITS_MAX,
    STACK_BYTES_MAX,
    Fault,
    Usage,
    read_duration,
    read_usage,
)
from mesh.core.protocol.record import Headers
from mesh.core.protocol.timestamps import parse_time

EXTENSIONS: Final = "mesh-extensions"
_DURATION_DIGITS_MAX: Final = 15
_TRUE: Final = b"true"


def fault_headers(fault: Fault) -> Headers:
    """Return a failure as plain headers."""
    headers: list[tuple[str, bytes]] = [
        ("mesh-error-code", fault.code.encode()),
        ("mesh-error-class", fault.cls.encode("utf-8", "replace")),
        ("mesh-error-message", fault.message.encode("utf-8", "replace")),
        ("mesh-error-retryable", _TRUE if fault.retryable else b"false"),
        ("mesh-error-stack", fault.stack.encode("utf-8", "replace")),
    ]
    if fault.retry_after_ms:
        headers.append(("mesh-error-retry-after-ms", b"%d" % fault.retry_after_ms))
    return headers


def expiry_of(h: dict[str, Any], stored_ms: int) -> int:
    """Read the deadline of an event that was stored at `stored_ms`. Raises ValueError."""
    if "mesh-lifetime-ms" not in h:
        return parse_time(h["ce_expirytime"].decode())
    lifetime = h["mesh-lifetime-ms"]
    if not lifetime.isdigit() or len(lifetime) > LIFETIME_DIGITS_MAX:
        raise ValueError(f"mesh-lifetime-ms is {lifetime[:32]!r}, expected 1 to {LIFETIME_DIGITS_MAX} digits")
    return stored_ms + int(lifetime)


def extensions_of(h: dict[str, Any]) -> tuple[str, ...]:
    """Read the extension attributes that the headers list. Raises KeyError for a missing one."""
    names = h[EXTENSIONS].decode().split(",")
    return tuple(text for name in names for text in (name, h[f"ce_{name}"].decode()))


def usage_of(usd: bytes | str | int, tokens: bytes | str | int) -> Usage | None:
    """Read a usage; None if it is invalid."""
    try:
        return read_usage(int(usd), int(tokens))
    except ValueError:
        return None


def fault_of(h: dict[str, Any]) -> Fault:
    """Read a failure. Texts that are too long are cut."""

    def text(name: str, bytes_max: int = FAULT_TEXT_BYTES_MAX) -> str:
        return str(h.get(name, b"")[:bytes_max], "utf-8", "replace")

    return Fault(
        text("mesh-error-code"),
        text("mesh-error-message"),
        text("mesh-error-class"),
        h.get("mesh-error-retryable") == _TRUE,
        text("mesh-error-stack", STACK_BYTES_MAX),
        duration_of(h.get("mesh-error-retry-after-ms", b"")),
    )


def duration_of(digits: bytes | str) -> int:
    """Read a duration on a result. An invalid one counts as 0, so that the result is not lost."""
    return read_duration(int(digits)) if digits.isdigit() and len(digits) <= _DURATION_DIGITS_MAX else 0
