"""Clients of the brokers: their addresses, TLS and SASL settings, and the deadline of every request.

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
"""End of the client ids of all members of our groups, by which they recognise one another."""
_REMEDY: Final = "Check that the broker runs and that the address and security settings are right"


_RIGHTS: Final = {"read": "Read", "poll": "Read", "append": "Write", "trim": "Delete", "create": "Create"}
"""First word of an operation → the right that it needs, if that is not Describe."""


def _denied_message(operation: str) -> str:
    right = _RIGHTS.get(operation.partition(" ")[0], "Describe")
    return f"Grant this user the right {right} on it; `mesh export acl` prints what each service needs"


class Connection:
    """The addresses and settings of the brokers, as keyword arguments for any aiokafka client."""

    def __init__(self, bootstrap: str, *, client_id: str, security: Mapping[str, str], request_timeout_ms: int) -> None:
        """Raises ConfigInvalid for an unknown or contradictory setting, or a file that cannot be read."""
        self.bootstrap = bootstrap
        self.client_id = client_id
        self.request_timeout_ms = request_timeout_ms
        self._security = _client_options(security)

    @property
    def url(self) -> str:
        """The addresses, without secrets."""
        return mask_address(f"kafka://{self.bootstrap}")

    def arguments(self, role: str) -> dict[str, Any]:
        """Return the keyword arguments of an aiokafka client in this role."""
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
            reason = await self._reasons() or str(error)
            raise self.unavailable(operation, reason) from error

    async def ask(self, operation: str, question: Callable[[], Awaitable[T]], *, timeout_ms: int | None = None) -> T:
        """Send a repeatable request and return its response. Repeats it while the broker's error is retriable.

        Raises LogUnavailable when there is no response within the timeout, or for a final error.
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
        """Make the error of an operation that did not end in time. `last`: the last error meanwhile."""
        got = f"none (last: {last})" if last else "none"
        return LogUnavailable(
            f"{operation} did not end",
            where=self.url,
            expected=f"an answer within {timeout_ms} ms",
            got=got,
            remedy=_REMEDY,
        )

    def unavailable(self, operation: str, reason: str) -> LogUnavailable:
        """Make the error of an operation that failed."""
        remedy = _denied_message(operation) if "AuthorizationFailed" in reason else _REMEDY
        return LogUnavailable(f"{operation} failed", where=self.url, got=reason, remedy=remedy)

    async def _reasons(self) -> str:
        """Find out why no broker can be reached, since aiokafka only logs that."""
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
    """Await the end of a client. Returns False when it hangs, fails or is cancelled; then it is abandoned.

    It runs in a task, because aiokafka's `stop` may hang without a broker. It also passes on a CancelledError of its
    own tasks before it has closed its connections: its client would then reconnect whenever the broker is back.
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
    """Stop a consumer that is in no group, whatever its state."""
    if not await ended_within(timeout_ms, consumer.stop()):
        await ended_within(1_000, consumer._client.close())


def _client_options(security: Mapping[str, str]) -> dict[str, Any]:
    """Return aiokafka's keyword arguments for these settings. Raises ConfigInvalid."""
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
        raise ConfigInvalid(f"invalid {name}", expected=" or ".join(allowed), got=value)
    return value
