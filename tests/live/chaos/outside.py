"""A producer and a consumer that know only docs/reference/protocol.md, and the judge of what they wrote down.

Both are processes of their own: `outside_kafka` with confluent-kafka, `outside_file` with the client of the embedded
log. This module imports nothing of the mesh.

    python -m tests.live.chaos.outside_kafka --log URL produce --topic chaos.orders --file sent.jsonl --count 400
    python -m tests.live.chaos.outside_kafka --log URL read --topic mesh.outcomes --topic mesh.dead --file seen.jsonl

The producer sends until it gets SIGTERM, and at least `--count` records. Every 100th is poison.
"""

import argparse
import asyncio
import hashlib
import json
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

TYPE, SOURCE = "chaos.order", "/shop/outside"
POISON_EVERY = 100
POISONS = {"bytes": "unparseable", "header": "unparseable", "type": "wrong_topic", "size": "too_large"}
"""Kinds of poison in their turn, and the reason code of each."""
HEADER_NAME_CHARS, PAYLOAD_BYTES = 1_048_000, 300_000
AGENTS = ("hear", "answer")
"""Each of them leaves the effect `<agent>:<id>` for each good record."""
TICK_S = 0.05
SHOWN_MAX = 5
_OURS = ("__dlq.", "__connect.", "mesh-dlq-")

Headers = Sequence[tuple[str, bytes | None]]
Place = tuple[str, int, int]
"""Topic, partition, offset."""


class Sent(NamedTuple):
    """A record of the producer. `poison`: its kind, or "" for a good one."""

    id: str
    poison: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Seen(NamedTuple):
    """A record of the consumer."""

    place: Place
    key: bytes | None
    value: bytes | None
    headers: Headers


class Door(Protocol):
    """A way to the log."""

    async def put(self, topic: str, records: Sequence[Sent]) -> Sequence[Place]:
        """Append, and return the places of all once the log has acknowledged them."""

    async def read(self, topic: str) -> Sequence[Seen]:
        """Return all that the topic holds now."""


def record(n: int) -> Sent:
    """Make record number `n`, always the same one: plain JSON, CloudEvents in both modes, poison."""
    id = f"o-{n}"
    key, body = id.encode(), json.dumps({"id": id}).encode()
    event = {"ce_specversion": "1.0", "ce_id": id, "ce_source": SOURCE, "ce_type": TYPE}
    if n % POISON_EVERY == POISON_EVERY - 1:
        kind = list(POISONS)[n // POISON_EVERY % len(POISONS)]
        match kind:
            case "bytes":
                return Sent(id, kind, key, b"\xff\xfe\x00 %b" % key)
            case "header":
                return Sent(id, kind, key, b"not JSON: %b" % key, (("h" * HEADER_NAME_CHARS, b"v"),))
            case "type":
                return Sent(id, kind, key, body, _encoded({**event, "ce_type": "chaos.ask"}))
            case _:
                return Sent(id, kind, key, json.dumps({"id": id, "ballast": "x" * PAYLOAD_BYTES}).encode())
    if n % 3 == 0:
        return Sent(id, "", key, body)
    if n % 3 == 1:
        return Sent(id, "", key, body, _encoded(event))
    attributes = {name.removeprefix("ce_"): text for name, text in event.items()}
    whole = json.dumps({**attributes, "data": {"id": id}}).encode()
    return Sent(id, "", key, whole, (("content-type", b"application/cloudevents+json"),))


def _encoded(headers: dict[str, str]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, text.encode()) for name, text in headers.items())


def run_of(topic: str, sent: Sent) -> str:
    """Compute the run id of a good record as docs/reference/protocol.md says."""
    own = f"/topics/{topic}"
    space = f"{own}\0{SOURCE}" if sent.headers else own
    return hashlib.blake2b(f"{space}\0{sent.id}".encode(), digest_size=12).hexdigest()


def digest(key: bytes | None, value: bytes | None, headers: Headers) -> str:
    """Hash a record byte for byte, without the headers that a dead letter adds."""
    kept = [(name, text) for name, text in headers if not name.startswith(_OURS)]
    return hashlib.sha256(repr((key, value, kept)).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------- the processes


async def produce(door: Door, topic: str, path: Path, *, rate: float, count: int) -> None:
    """Send `rate` records a second until SIGTERM and at least `count`; write down each before and after."""
    enough = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, enough.set)
    began, n = time.monotonic(), 0
    with path.open("w") as file:
        while not enough.is_set() or n < count:
            due = max(n, int((time.monotonic() - began) * rate))
            numbers = range(n, min(due, n + 500))
            for asked in numbers:
                file.write(json.dumps({"asked": asked, "at": time.time()}) + "\n")
            file.flush()
            for acked, place in zip(numbers, await door.put(topic, [record(k) for k in numbers]), strict=True):
                file.write(json.dumps({"acked": acked, "place": place}) + "\n")
            file.flush()
            n += len(numbers)
            await asyncio.sleep(TICK_S)


async def consume(door: Door, topics: Iterable[str], path: Path) -> None:
    """Write down what the topics hold."""
    with path.open("w") as file:
        for topic in topics:
            for seen in await door.read(topic):
                file.write(json.dumps(_line(seen)) + "\n")


def _line(seen: Seen) -> dict[str, Any]:
    headers = {name: (text or b"").decode("utf-8", "replace") for name, text in seen.headers if len(name) <= 256}
    body: Any = None
    if headers.get("ce_meshkind") in ("outcome", "egress") and headers.get("__dlq.errors.topic") is None:
        body = json.loads(seen.value or b"null")
        ids = body.get("request", {}).get("ids") or [body.get("id")]
    return {
        "place": seen.place,
        "type": headers.get("ce_type", ""),
        "kind": headers.get("ce_meshkind", ""),
        "ce_id": headers.get("ce_id", ""),
        "run": headers.get("ce_correlationid", ""),
        "ids": ids if body is not None else [],
        "ending": (body or {}).get("ending", ""),
        "digest": digest(seen.key, seen.value, seen.headers),
        "value": hashlib.sha256(seen.value or b"").hexdigest(),
        "dlq": {name: text for name, text in headers.items() if name.startswith(_OURS) and "stack" not in name},
    }


def main(opened: Callable[[str, str], AbstractAsyncContextManager[Door]]) -> None:
    """Command line of a producer or consumer; `opened` makes its door from the URL and the topology's path."""
    parser = argparse.ArgumentParser(description="the outside of a fault test")
    parser.add_argument("--log", required=True)
    parser.add_argument("--topology", default="")
    parser.add_argument("what", choices=("produce", "read"))
    parser.add_argument("--topic", action="append", required=True)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--count", type=int, default=0)
    given = parser.parse_args()

    async def act() -> None:
        async with opened(given.log, given.topology) as door:
            if given.what == "produce":
                await produce(door, given.topic[0], given.file, rate=given.rate, count=given.count)
            else:
                await consume(door, given.topic, given.file)

    asyncio.run(act())


# ----------------------------------------------------------------------------------------------------------- the judge


class Acked(NamedTuple):
    """A record that the log acknowledged."""

    sent: Sent
    at_s: float
    place: Place


def acknowledged(path: Path) -> list[Acked]:
    """Read what the producer wrote down. All of it must be acknowledged, since the broker is never killed."""
    at_s: dict[int, float] = {}
    found = []
    for text in path.read_text().splitlines():
        line = json.loads(text)
        if "asked" in line:
            at_s[line["asked"]] = line["at"]
        else:
            n = line["acked"]
            topic, partition, offset = line["place"]
            found.append(Acked(record(n), at_s[n], (topic, partition, offset)))
    assert len(found) == len(at_s), f"{len(at_s) - len(found)} records were not acknowledged"
    return found


def judge(acked: Sequence[Acked], seen: Sequence[dict[str, Any]], effects: Iterable[str]) -> dict[str, Any]:
    """Count, and name under `wrong` all that must not be. `effects`: the notes of all calls."""
    good = {entry.sent.id: entry for entry in acked if not entry.sent.poison}
    poison = {entry.place: entry for entry in acked if entry.sent.poison}
    wrong: list[str] = []

    def blame(text: str, names: Iterable[str]) -> None:
        if listed := sorted(names):
            wrong.append(f"{text}: {len(listed)}: {', '.join(listed[:SHOWN_MAX])}")

    endings: dict[str, set[str]] = defaultdict(set)
    how: dict[str, str] = {}
    left: dict[str, set[str]] = defaultdict(set)
    copies: Counter[str] = Counter()
    for line in (line for line in seen if not line["dlq"] and line["type"] != "mesh.request.rejected"):
        for id in line["ids"]:
            if line["kind"] == "outcome":
                endings[id].add(f"{line['run']} {line['ce_id']}")
                how[id] = line["ending"]
            elif line["kind"] == "egress":
                left[id].add(line["ce_id"])
            copies[line["kind"]] += 1
    called = Counter(effects)
    known = {entry.sent.id for entry in acked}
    lost = good.keys() - endings.keys()
    twice = [id for id, found in endings.items() if id in known and len(found) > 1]
    blame("never ended", lost)
    blame("ended twice", twice)
    blame("did not complete", (f"{id} ({how[id]})" for id in good.keys() & how.keys() if how[id] != "completed"))
    blame("poison that became a run", (e.sent.id for e in poison.values() if e.sent.id in endings))
    for agent in AGENTS:
        blame(f"without the effect of {agent}", (id for id in good if not called[f"{agent}:{id}"]))
    blame("never left the mesh", good.keys() - left.keys())
    blame("left under several ids", (id for id in good if len(left[id]) > 1))
    wrong += _buried(poison, seen)
    return {
        "good": len(good),
        "poison": len(poison),
        "lost": len(lost),
        "ended_twice": len(twice),
        "effects_repeated": sum(called[f"{agent}:{id}"] - 1 for agent in AGENTS for id in good),
        "egress_repeated": copies["egress"] - len(left),
        "outcomes_repeated": copies["outcome"] - len(endings),
        "wrong": wrong,
    }


def _buried(poison: dict[Place, Acked], seen: Sequence[dict[str, Any]]) -> list[str]:
    """Each poison record is one dead letter with its bytes and the reason code, and no other record is there."""
    letters: dict[Place, list[dict[str, Any]]] = defaultdict(list)
    lying = {tuple(line["place"]): line for line in seen if not line["dlq"]}
    for line in seen:
        if origin := line["dlq"].get("__dlq.errors.topic"):
            dlq = line["dlq"]
            place = (origin, int(dlq["__dlq.errors.partition"]), int(dlq["__dlq.errors.offset"]))
            letters[place].append(line)
    topics = {place[0] for place in poison}
    wrong = [f"a good record is a dead letter: {p}" for p in letters if p[0] in topics and p not in poison]
    for place, (sent, _, _) in poison.items():
        name = f"{sent.poison} {sent.id} at {place}"
        found = letters[place]
        if not found:
            wrong.append(f"poison that is no dead letter: {name}")
        for line in found:
            dlq = line["dlq"]
            if dlq["mesh-dlq-reason"] != POISONS[sent.poison]:
                wrong.append(f"reason {dlq['mesh-dlq-reason']}, expected {POISONS[sent.poison]}: {name}")
            # What no dead letter can hold is still where the letter says.
            omitted = "mesh-dlq-omitted" in dlq and sent.poison == "header"
            bytes_found = lying.get(place, line)["digest"] if omitted else line["digest"]
            if bytes_found != digest(sent.key, sent.value, sent.headers):
                wrong.append(f"other bytes: {name}")
        if len({line["dlq"]["mesh-dlq-id"] for line in found}) > 1:
            wrong.append(f"two dead letters: {name}")
    return wrong
