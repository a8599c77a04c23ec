"""The board on Redis 7 or later. The only file that imports redis.

Every operation is one Lua script (`board.lua`), called by its digest, so it is atomic and costs one round trip. All
keys of a mesh have one hash tag, `{prefix}`, and so are in one cluster slot. The server needs the policy `noeviction`
and a user that may run INFO. Times are the server's own: one clock for all writers keeps `at_ms` in the order of
versions, even if the clock of a client is wrong.

The incarnation changes with the server's replication id (restart, failover, restore), and when the keys were wiped. A
clean restart therefore costs every holder of a version one conflict and one more read. In return no version from before
a rollback ever passes, even if the counter reaches the same number again.

A new incarnation is *incomplete* until `mark_complete`: `add`, `append` and `put(expect=ABSENT)` depend on a value that
may have been lost. So they raise BoardIncomplete until the lost values were restored (`runtime.board_maintenance`).

Calls raise BoardUnavailable when the server has answered no call for `timeout_ms`. So does a call that has waited two
seconds although others were answered. Its write may or may not have happened. Repeat it with the same `op_id` to learn
which, without doing it twice. This module repeats no call.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from importlib import resources
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool

from mesh.adapters.clock import SystemClock
from mesh.adapters.deadline import tolerant_timeout
from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import ABSENT, ANY, Clock, Completeness, Count, Entry, Limit
from mesh.core.board import rules
from mesh.core.errors import BoardUnavailable, ConfigInvalid, Conflict, MeshError

NOEVICTION: Final = "noeviction"
CHANGES_MAX: Final = 100_000
"""Changes (of the whole mesh, approximately) that a watcher may lag behind before it misses the oldest."""
CONNECTIONS_MAX: Final = 16
"""Calls under way at once. Further calls wait within their deadline."""
QUEUE_MS_MAX: Final = 2_000
"""Longest wait of a call while the server answers others."""
WATCHERS_MAX: Final = 256
WATCH_TIMEOUT_MS: Final = 30_000
"""Longest time that a watcher tries to reach the server before it raises."""
_WATCH_BLOCK_MS: Final = 1_000
_WATCH_PAUSE_MS: Final = 100
_WATCH_BATCH: Final = 100
_KEYS_BATCH: Final = 1_000

_LIMITS: Final = {
    "CHANGES_MAX": CHANGES_MAX,
    "VALUE_BYTES_MAX": rules.VALUE_BYTES_MAX,
    "HISTORY_MAX": rules.HISTORY_MAX,
    "HISTORY_BYTES_MAX": rules.HISTORY_BYTES_MAX,
    "OPS_MAX": rules.OPS_MAX,
    "OPS_TTL_MS": rules.OPS_TTL_MS,
    "COUNTER_MAX": rules.COUNTER_MAX,
    "RESTORE_OP": f"'{rules.RESTORE_OP}'",
}
_SCRIPT: Final = "".join(f"local {name} = {limit}\n" for name, limit in _LIMITS.items()) + (
    resources.files("mesh.adapters.redis").joinpath("board.lua").read_text(encoding="utf-8")
)
_DIGEST: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

_REMEDIES: Final = {
    "OOM": "Raise Redis' maxmemory or delete keys; its policy must be noeviction",
    "MISCONF": "Redis cannot save to its disk: see its log, make room",
    "READONLY": "That server is a replica: name the primary in the board's URL",
    "LOADING": "Redis is reading its data; try again",
    "NOAUTH": "Give user and password in the board's URL",
    "WRONGPASS": "Check user and password in the board's URL",
    "NOPERM": "The Redis user needs its keys, EVAL, EVALSHA, INFO, XREAD, XRANGE, XREVRANGE and ZRANGE",
    "MOVED": "That server is part of a cluster: name the node that holds the mesh's slot",
}
_ANSWER = tuple[bytes, ...]
_log = diagnostics("board")


class _Incarnation(NamedTuple):
    """The store's incarnation, the counter at its begin, the counter now, whether it is complete, and the incarnation
    before it if that was complete, else ""."""

    incarnation: str
    since: int
    seq: int
    complete: bool
    before: str


class _Connections(NamedTuple):
    """A pool, and a fair semaphore for its callers. The pool's own wait is not fair: a caller that has returned a
    connection takes it again before waiting callers, until their deadlines pass."""

    pool: BlockingConnectionPool
    slots: asyncio.Semaphore


class RedisBoard:
    """`Board` on Redis. `url` is `redis://[user:password@]host:port/db`, `rediss://…` for TLS, or `unix://path`.

    Connects at the first use and again whenever needed; `start` only checks that it can. Raises ConfigInvalid for an
    invalid URL or prefix.
    """

    def __init__(
        self, url: str, *, prefix: str = "mesh", timeout_ms: float = 250.0, clock: Clock | None = None
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", prefix):
            raise ConfigInvalid(
                "the prefix of the board's keys is not usable",
                expected="1..64 characters of A-Z a-z 0-9 . _ -",
                got=ascii(prefix[:80]),
                remedy="Choose another prefix",
            )
        self._url = _public(url)
        self._tag = f"{{{prefix}}}:board:"
        self._timeout_ms = timeout_ms
        self._last_answer_s = 0.0
        """Time of the server's last answer to this process, by the loop's clock."""
        self._clock = clock or SystemClock()
        self._calls = self._connections(url, CONNECTIONS_MAX)
        self._watches = self._connections(url, WATCHERS_MAX)  # a separate pool, so that watchers never delay writers

    def _connections(self, url: str, connections_max: int) -> _Connections:
        # Each call has our own deadline, so the library's timeouts are off. Only the connect timeout is set, which
        # the library also uses to close connections: it is long enough never to end a call. Pools never retry.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections_max,
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=(QUEUE_MS_MAX + self._timeout_ms) / 1000,
            protocol=2,
        )
        return _Connections(pool, asyncio.Semaphore(connections_max))

    @property
    def url(self) -> str:
        return self._url

    async def start(self) -> None:
        """Check that Redis answers, and warn if it may evict keys. Raises BoardUnavailable: later use may succeed."""
        _, memory = await self._execute("start", self._calls, [self._script("life", ""), ("INFO", "memory")])
        found = dict(line.split(":", 1) for line in memory.decode().splitlines() if ":" in line)
        policy, maxmemory = found.get("maxmemory_policy", NOEVICTION), found.get("maxmemory", "0")
        if policy != NOEVICTION and maxmemory != "0":
            _log.warning(
                "Redis may evict values of the board: set maxmemory-policy to noeviction",
                board=self._url,
                expected=NOEVICTION,
                got=policy,
                maxmemory=int(maxmemory),
                fix=f"redis-cli CONFIG SET maxmemory-policy {NOEVICTION}; write it to redis.conf as well",
            )

    async def info(self) -> dict[str, str]:
        """Return what the server says of itself. Raises BoardUnavailable."""
        [text] = await self._execute("info", self._calls, [("INFO",)])
        return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)

    async def close(self) -> None:
        # Without our deadline, which would leave sockets open: the library has one for each connection.
        closing = (self._calls.pool.aclose(), self._watches.pool.aclose())
        for error in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(error, BaseException) and not isinstance(error, exceptions.RedisError | OSError):
                raise error  # the others mean that the server is unavailable

    async def incarnation(self) -> str:
        return (await self._incarnation("incarnation")).incarnation

    async def completeness(self) -> Completeness:
        current = await self._incarnation("completeness")
        return Completeness(current.complete, current.before, current.since)

    async def mark_complete(self, incarnation: str) -> bool:
        return (await self._run("complete", "", "", "", incarnation))[1] == b"1"

    async def get(self, key: str) -> Entry | None:
        rules.check_key(key)
        answer = await self._run("get", key)
        return None if answer[0] == b"absent" else _entry(key, answer)

    async def put(self, key: str, value: bytes, *, expect: str = ANY, by: str = "", op_id: str = "") -> Entry:
        rules.check_write(key, op_id, by)
        rules.check_value(key, value)
        rules.check_expect(expect, wildcards=(ANY, ABSENT))
        return _entry(key, self._accept(key, op_id, expect, await self._run("put", key, op_id, by, value, expect)))

    async def delete(self, key: str, *, expect: str = ANY, by: str = "", op_id: str = "") -> bool:
        rules.check_write(key, op_id, by)
        rules.check_expect(expect, wildcards=(ANY, ABSENT))
        answer = self._accept(key, op_id, expect, await self._run("delete", key, op_id, by, expect))
        return answer[1] == b"1"

    async def append(self, key: str, item: bytes, *, items_max: int, by: str = "", op_id: str = "") -> Entry:
        rules.check_write(key, op_id, by)
        text = rules.check_item(key, item, items_max)
        return _entry(key, self._accept(key, op_id, ANY, await self._run("append", key, op_id, by, text, items_max)))

    async def add(
        self, key: str, amount: int, *, value_max: Limit = None, value_min: Limit = None, by: str = "", op_id: str = ""
    ) -> Count:
        rules.check_write(key, op_id, by)
        low, high = rules.check_counter(key, amount, value_min, value_max)
        _, value, applied, *made = self._accept(
            key, op_id, ANY, await self._run("add", key, op_id, by, amount, low, high)
        )
        version, at_ms = (made[0].decode(), int(made[1] or 0)) if made else ("", 0)
        return Count(int(value), applied == b"1", version, at_ms)

    async def lease(self, key: str, value: bytes, *, ttl_ms: int, expect: bytes = b"") -> bytes:
        rules.check_lease(key, value, ttl_ms)  # no key contains `~`, so leases are separate from values
        return (await self._run("lease", f"~{key}", "", "", expect, value, ttl_ms))[1]

    async def history(self, key: str, *, limit: int = 100) -> Sequence[Entry]:
        rules.check_key(key)
        count = rules.check_limit(limit)
        past = self._tag + "past:" + key
        [found] = await self._execute("history", self._calls, [("XREVRANGE", past, "+", "-", "COUNT", count)])
        return [_past(key, *item) for item in found]

    async def keys(self, pattern: str = "*") -> Sequence[str]:
        matches, prefix = rules.glob(pattern), rules.glob_prefix(pattern)
        low, high = (f"[{prefix}", f"({prefix}\x7f") if prefix else ("-", "+")
        found: list[str] = []
        while True:
            command = ("ZRANGE", self._tag + "index", low, high, "BYLEX", "LIMIT", 0, _KEYS_BATCH)
            [page] = await self._execute("keys", self._calls, [command])
            found += filter(matches, map(bytes.decode, page))
            if len(page) < _KEYS_BATCH:
                return found
            low = f"({page[-1].decode()}"

    async def watch(self, pattern: str = "*") -> AsyncGenerator[Entry, None]:
        """Follow ids in a stream, so that a lost connection loses no change.

        A change is missed only when the watcher is more than CHANGES_MAX changes late, or later than the history of
        that key reaches. Raises BoardUnavailable when the server was unavailable for WATCH_TIMEOUT_MS.
        """
        matches = rules.glob(pattern)
        return self._follow(matches, await self._incarnation("watch"))

    async def _follow(self, matches: Callable[[str], bool], current: _Incarnation) -> AsyncGenerator[Entry, None]:
        position = current.seq
        answered_ms = self._clock.monotonic_ms()
        while True:
            try:
                position_next, entries, now = await self._changes(position, matches)
            except BoardUnavailable:
                if self._clock.monotonic_ms() - answered_ms > WATCH_TIMEOUT_MS:
                    raise
                await self._clock.sleep_ms(_WATCH_PAUSE_MS)
                continue
            answered_ms = self._clock.monotonic_ms()
            if now.incarnation != current.incarnation:
                # The store was rolled back or wiped: go on from the begin of the new incarnation.
                current, position = now, now.since
                continue
            for entry in entries:
                yield entry
            position = position_next

    async def _changes(self, position: int, matches: Callable[[str], bool]) -> tuple[int, list[Entry], _Incarnation]:
        """Wait a moment for changes after `position`; return the next position, the changes and the incarnation. That
        is read *after* the changes, which may belong to another one than the position does."""
        stream = self._tag + "changes"
        read = ("XREAD", "COUNT", _WATCH_BATCH, "BLOCK", _WATCH_BLOCK_MS, "STREAMS", stream, f"{position}-0")
        [found] = await self._execute("watch", self._watches, [read], wait_ms=_WATCH_BLOCK_MS)
        changed = [(int(at.partition(b"-")[0]), fields[1].decode()) for at, fields in found[0][1]] if found else []
        ours = [(seq, key) for seq, key in changed if matches(key)]
        reads = [("XRANGE", self._tag + "past:" + key, seq, seq) for seq, key in ours]
        *values, current = await self._execute("watch", self._calls, [*reads, self._script("life", "")])
        entries = [_past(key, *value[0]) for (_, key), value in zip(ours, values, strict=True) if value]
        return changed[-1][0] if changed else position, entries, _incarnation(current)

    async def _incarnation(self, operation: str) -> _Incarnation:
        return _incarnation((await self._execute(operation, self._calls, [self._script("life", "")]))[0])

    async def _run(self, operation: str, key: str, op_id: str = "", by: str = "", *args: bytes | str | int) -> _ANSWER:
        [answer] = await self._execute(operation, self._calls, [self._script(operation, key, op_id, by, *args)])
        return tuple(answer)

    def _script(self, operation: str, key: str, *args: bytes | str | int) -> tuple[bytes | str | int, ...]:
        shared = (self._tag + name for name in ("life", "changes", "index"))
        keys = (*shared, *(f"{self._tag}{kind}:{key}" for kind in ("past", "ops", "order")))
        return "EVALSHA", _DIGEST, len(keys), *keys, operation, key, *(args or ("", ""))

    async def _execute(
        self,
        operation: str,
        connections: _Connections,
        commands: Sequence[tuple[bytes | str | int, ...]],
        *,
        wait_ms: float = 0.0,
    ) -> list[Any]:
        """Send commands over one connection, within one deadline; return one reply for each."""
        connection, has_slot = None, False
        replies: list[Any] = []
        try:
            # While the server answers other calls, this one may wait: silence is an outage, a queue is not.
            timeout_ms = self._timeout_ms + wait_ms
            async with (
                asyncio.timeout((QUEUE_MS_MAX + timeout_ms) / 1000),
                tolerant_timeout(timeout_ms, last_answer_s=lambda: self._last_answer_s),
            ):
                has_slot = await connections.slots.acquire()
                connection = await connections.pool.get_connection()  # type: ignore[no-untyped-call]
                for command in commands:
                    replies.append(await _ask(connection, command))
                    self._last_answer_s = asyncio.get_running_loop().time()
                return replies
        except TimeoutError:
            raise BoardUnavailable(
                f"board {operation} got no answer within {self._timeout_ms:.0f} ms",
                where=self._url,
                remedy="See whether Redis runs there and is not overloaded; a write may or may not have happened",
            ) from None
        except (exceptions.RedisError, OSError) as error:
            raise self._unavailable(operation, error) from error
        finally:  # outside the deadline, which must not interrupt the release
            try:
                if connection is not None:
                    await connections.pool.release(connection)
            finally:
                if has_slot:
                    connections.slots.release()

    def _unavailable(self, operation: str, error: Exception) -> BoardUnavailable:
        code = getattr(error, "status_code", None)  # the first word of Redis' reply, which the library removes
        text = f"{code or ''} {error}".strip().rstrip(".") or type(error).__name__
        word = "NOPERM" if "can't run this command" in text else text.partition(" ")[0]  # its text within a script
        remedy = _REMEDIES.get(word, "See whether Redis runs there")
        return BoardUnavailable(f"board {operation} failed: {text}", where=self._url, remedy=remedy)

    def _accept(self, key: str, op_id: str, expect: str, answer: _ANSWER) -> _ANSWER:
        """Return the answer of a write, or raise the error that it means."""
        if answer[0] == b"conflict":
            raise Conflict(key, expected=expect, current=answer[1].decode())
        if answer[0] == b"incomplete":
            raise rules.incomplete(key, self._url)
        if answer[0] == b"invalid":
            raise _invalid(key, op_id, *(part.decode() for part in answer[1:]))
        return answer


async def _ask(connection: Any, command: tuple[bytes | str | int, ...]) -> Any:
    await connection.send_command(*command)
    try:
        return await connection.read_response()
    except exceptions.NoScriptError:
        await connection.send_command("EVAL", _SCRIPT, *command[2:])  # also loads the script
        return await connection.read_response()


def _entry(key: str, answer: _ANSWER) -> Entry:
    _, value, version, at_ms, by = answer
    return Entry(key, value, version.decode(), int(at_ms), by.decode())


def _past(key: str, stream_id: bytes, fields: Sequence[bytes]) -> Entry:
    """Make an entry from an item of a key's stream, whose fields are in the order of `write` in the script."""
    version = f"{fields[3].decode()}:{stream_id.partition(b'-')[0].decode()}"
    return Entry(key, fields[1], version, int(fields[5]), fields[7].decode())


def _incarnation(answer: Sequence[bytes]) -> _Incarnation:
    return _Incarnation(answer[1].decode(), int(answer[2]), int(answer[3]), answer[4] == b"1", answer[5].decode())


def _invalid(key: str, op_id: str, reason: str, detail: str = "") -> MeshError:
    match reason:
        case "not_an_array":
            return rules.not_an_array(key)
        case "not_a_counter":
            return rules.not_a_counter(key)
        case "too_large":
            return rules.too_large(key, int(detail))
    return rules.op_reused(key, op_id, detail)


def _public(url: str) -> str:
    """Return the URL without user, password and options. Raises ConfigInvalid."""
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme == "unix" and parts.path:
        return f"unix://{parts.path}"
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ConfigInvalid(
            "the board's URL is not one of Redis",  # not shown: it may hold a password
            expected="redis://[user:password@]host:port/db, rediss://… or unix://path",
            remedy="Set MESH_BOARD to such a URL",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}{parts.path}"
