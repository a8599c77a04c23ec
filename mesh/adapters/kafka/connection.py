"""How clients of the broker are made: addresses, TLS and SASL, and the deadline that every question has.

Settings have the names of aiokafka and Kafka's clients (`security_protocol`, `sasl_mechanism`, `ssl_cafile`, …).
"""

import asyncio
import difflib
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context

from mesh.core.errors import ConfigInvalid, LogUnavailable
from mesh.core.redaction import mask_address

T = TypeVar("T")

PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI")
SASL_NAMES: Final = (
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "sasl_kerberos_service_name",
    "sasl_kerberos_domain_name",
)
SSL_NAMES: Final = ("ssl_cafile", "ssl_capath", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_check_hostname")
NAMES: Final = ("security_protocol", *SASL_NAMES, *SSL_NAMES)

RETRY_BACKOFF_MS: Final = 50
MEMBER_ROLE: Final = "member"
"""How the client ids of members of our groups end: so they know one another."""
_REMEDY: Final = "Check that the broker runs and that the address and security settings are right"


_RIGHTS: Final = {"read": "Read", "poll": "Read", "append": "Write", "trim": "Delete", "create": "Create"}
"""First word of an operation → the right that it needs, where that is not Describe."""


def _denied(operation: str) -> str:
    right = _RIGHTS.get(operation.partition(" ")[0], "Describe")
    return f"Grant this user the right {right} on it; `mesh export acl` prints what each service needs"


class Connection:
    """Where the brokers are and how to talk to them; makes keyword arguments for any aiokafka client."""

    def __init__(self, bootstrap: str, *, client_id: str, security: Mapping[str, str], request_timeout_ms: int) -> None:
        """Raises ConfigInvalid for an unknown or contradictory setting, or a file that cannot be read."""
        self.bootstrap = bootstrap
        self.client_id = client_id
        self.request_timeout_ms = request_timeout_ms
        self._security = _checked(security)

    @property
    def url(self) -> str:
        """The addresses, for people; holds no secret."""
        return mask_address(f"kafka://{self.bootstrap}")

    def arguments(self, role: str) -> dict[str, Any]:
        """Keyword arguments of an aiokafka client that acts as `role`."""
        return {
            "bootstrap_servers": self.bootstrap,
            "client_id": f"{self.client_id}-{role}",
            "request_timeout_ms": self.request_timeout_ms,
            "retry_backoff_ms": RETRY_BACKOFF_MS,
            "metadata_max_age_ms": 60_000,
            **self._security,
        }

    async def start(self, operation: str, starting: Coroutine[Any, Any, T]) -> T:
        """Await the start of a client within the request timeout. Raises LogUnavailable with the reason."""
        try:
            async with asyncio.timeout(self.request_timeout_ms / 1000):
                return await starting
        except TimeoutError as error:
            raise self.late(operation, self.request_timeout_ms) from error
        except (KafkaError, OSError) as error:
            reason = await self._why() or str(error)
            raise self.unavailable(operation, reason) from error

    async def ask(self, operation: str, question: Callable[[], Awaitable[T]], *, timeout_ms: int | None = None) -> T:
        """The answer to a question that may be repeated; repeats it while the broker says "not now".

        Raises LogUnavailable when there is no answer within the timeout, or a final refusal.
        """
        limit_ms = self.request_timeout_ms if timeout_ms is None else timeout_ms
        last: KafkaError | None = None
        try:
            async with asyncio.timeout(limit_ms / 1000):
                while True:
                    try:
                        return await question()
                    except KafkaError as error:
                        if not error.retriable:
                            raise self.unavailable(operation, str(error)) from error
                        last = error
                    await asyncio.sleep(RETRY_BACKOFF_MS / 1000)
        except TimeoutError as error:
            raise self.late(operation, limit_ms, last) from error

    def late(self, operation: str, timeout_ms: int, last: Exception | None = None) -> LogUnavailable:
        """The error of an operation that did not end in time. `last`: what went wrong meanwhile."""
        got = f"none (last: {last})" if last else "none"
        return LogUnavailable(
            f"{operation} did not end",
            where=self.url,
            expected=f"an answer within {timeout_ms} ms",
            got=got,
            remedy=_REMEDY,
        )

    def unavailable(self, operation: str, reason: str) -> LogUnavailable:
        """The error of an operation that the broker answered with an error, or not at all."""
        remedy = _denied(operation) if "AuthorizationFailed" in reason else _REMEDY
        return LogUnavailable(f"{operation} failed", where=self.url, got=reason, remedy=remedy)

    async def _why(self) -> str:
        """Why no broker can be reached: aiokafka keeps that to its log."""
        reasons = []
        arguments = self.arguments("probe")
        for name in ("bootstrap_servers", "retry_backoff_ms", "metadata_max_age_ms"):
            del arguments[name]
        for address in self.bootstrap.split(","):
            host, _, port = address.strip().rpartition(":")
            try:
                async with asyncio.timeout(2):
                    (await create_conn(host.strip("[]"), int(port), **arguments)).close()
            except TimeoutError:
                reasons.append(f"{address}: no answer")
            except (KafkaError, OSError) as error:
                reasons.append(f"{address}: {error}")
        return "; ".join(reasons)


async def ended_within(timeout_ms: int, ending: Coroutine[Any, Any, object]) -> bool:
    """Await the end of a client; False when it hangs, fails or is cut short, in which case it is abandoned half ended.

    aiokafka's `stop` may hang with the broker down, and lets a CancelledError of its own tasks out before it has closed
    its connections (its client would then connect again whenever the broker is back, for ever): hence a task.
    """
    task = asyncio.get_running_loop().create_task(ending)
    try:
        await asyncio.wait([task], timeout=timeout_ms / 1000)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        await asyncio.wait([task], timeout=1)
        return False
    return not task.cancelled() and task.exception() is None


async def end_consumer(timeout_ms: int, consumer: AIOKafkaConsumer) -> None:
    """Stop one that is in no group, whatever state it is in."""
    if not await ended_within(timeout_ms, consumer.stop()):
        await ended_within(1_000, consumer._client.close())


def _checked(security: Mapping[str, str]) -> dict[str, Any]:
    """aiokafka's keyword arguments for these settings."""
    for name in security:
        if name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, n=1)
            raise ConfigInvalid(
                f"unknown Kafka setting {name!r}",
                expected=", ".join(NAMES),
                remedy=f"Did you mean {close[0]}?" if close else "Remove it",
            )
    protocol = _one_of("security_protocol", security.get("security_protocol", "PLAINTEXT"), PROTOCOLS)
    arguments: dict[str, Any] = {"security_protocol": protocol}
    for prefix, names in (("SASL", SASL_NAMES), ("SSL", SSL_NAMES)):
        given = [name for name in names if name in security]
        if given and prefix not in protocol.split("_"):
            raise ConfigInvalid(
                f"{given[0]} has no effect with security_protocol {protocol}",
                remedy=f"Set security_protocol to one with {prefix}, or remove {given[0]}",
            )
    if protocol.startswith("SASL"):
        arguments |= _sasl(security)
    if protocol.endswith("SSL"):
        arguments["ssl_context"] = _ssl_context(security)
    return arguments


def _sasl(security: Mapping[str, str]) -> dict[str, Any]:
    mechanism = _one_of("sasl_mechanism", security.get("sasl_mechanism", "PLAIN"), MECHANISMS)
    for name in ("sasl_plain_username", "sasl_plain_password"):
        if mechanism != "GSSAPI" and not security.get(name):
            raise ConfigInvalid(f"{name} is missing", expected=f"a value, for sasl_mechanism {mechanism}")
    return {name: security[name] for name in SASL_NAMES if name in security} | {"sasl_mechanism": mechanism}


def _ssl_context(security: Mapping[str, str]) -> ssl.SSLContext:
    if "ssl_keyfile" in security and "ssl_certfile" not in security:
        raise ConfigInvalid("ssl_keyfile without ssl_certfile", remedy="Set ssl_certfile as well")
    check = _one_of("ssl_check_hostname", security.get("ssl_check_hostname", "true"), ("true", "false"))
    names = ("ssl_cafile", "ssl_capath", "ssl_certfile", "ssl_keyfile", "ssl_password")
    files = ", ".join(f"{name}={security[name]}" for name in names[:4] if name in security)
    try:
        context: ssl.SSLContext = create_ssl_context(
            **{name.removeprefix("ssl_"): security.get(name) for name in names}
        )
    except OSError as error:
        # SSLError is an OSError: wrong PEM, wrong password.
        raise ConfigInvalid(f"the TLS files cannot be used: {error}", where=files, remedy="Check them") from error
    context.check_hostname = check == "true"
    return context


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ConfigInvalid(f"{name} is wrong", expected=" or ".join(allowed), got=value)
    return value
