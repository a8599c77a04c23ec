"""Administration of the brokers: descriptions of topics and groups, and the creation of topics.

Every request may be repeated, and is repeated up to a deadline while the broker's error is retriable.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest, OffsetResetStrategy
from aiokafka.structs import TopicPartition as KafkaPartition

from mesh.adapters.kafka import commits as group_commits
from mesh.adapters.kafka.connection import MEMBER_ROLE, Connection, ended_within
from mesh.adapters.ports import Bounds, Commit, TopicSpec
from mesh.core.errors import Fenced, LogUnavailable, NotFound, TopicsInvalid
from mesh.core.health.log_rules import SETTINGS, ClusterFacts, TopicFacts
from mesh.core.protocol.record import TopicPartition

REPLICAS_MAX = 3
TIMESTAMP_TYPE = "message.timestamp.type"
LOG_TIME = "LogAppendTime"
_IDLE = ("Empty", "Dead")
_READ_UNCOMMITTED = 0
_DENIED = (errors.TopicAuthorizationFailedError, errors.ClusterAuthorizationFailedError)


class TopicDescription(NamedTuple):
    """A topic as the broker describes it: the leader of each partition (-1: none yet), or an error."""

    leaders: Mapping[int, int]
    error: type[errors.BrokerResponseError] | None = None
    internal: bool = False


class Topics:
    """An administrative client."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._admin = AIOKafkaAdminClient(**connection.arguments("admin"))
        self._coordinators: dict[str, int] = {}
        """Group → its coordinating broker, as last found."""

    async def start(self) -> None:
        """Connect. Raises LogUnavailable."""
        await self._connection.start("connect", self._admin.start())

    async def close(self, timeout_ms: int) -> None:
        await ended_within(timeout_ms, self._admin.close())

    async def describe(
        self, names: Collection[str] | None = None, *, timeout_ms: int | None = None
    ) -> dict[str, TopicDescription]:
        """Describe these topics, or all. Unknown topics are described by their error. Raises LogUnavailable."""
        asked = None if names is None else sorted(names)
        # Not the client's own request, which makes a broker with auto.create.topics.enable create missing topics.
        response = await self._connection.ask(
            "describe topics", lambda: self._send(MetadataRequest(asked, False)), timeout_ms=timeout_ms
        )
        return {answer["topic"]: _describe(answer) for answer in response.to_object()["topics"]}

    async def _send(self, request: Any, node: int | None = None) -> Any:
        """Send a request to one broker, or to any."""
        client = self._admin._client
        return await client.send(client.get_random_node() if node is None else node, request)

    async def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create the missing topics; return their names when every partition has a leader.

        Raises LogUnavailable, and TopicsInvalid (all refusals at once) when the others can be used.
        """
        known = await self.describe({spec.name for spec in specs})
        missing = [spec for spec in specs if known[spec.name].error is errors.UnknownTopicOrPartitionError]
        problems = [
            f"{name}: {topic.error.description}"
            for name, topic in known.items()
            if topic.error not in (None, errors.UnknownTopicOrPartitionError, errors.LeaderNotAvailableError)
        ]
        created: list[str] = []
        if missing:
            replicas = await self._connection.ask("count the brokers", self._replicas)
            created, refused = await self._connection.ask("create topics", lambda: self._create(missing, replicas))
            problems += refused
        awaited = [spec for spec in missing if spec.name in created] if problems else missing
        await self._wait_for_leaders({spec.name: spec.partitions for spec in awaited})
        if problems:
            raise TopicsInvalid(
                self._connection.url, problems, remedy="Correct the declaration, or grant the right to create topics"
            )
        return created

    async def _replicas(self) -> int:
        brokers = len((await self._admin.describe_cluster())["brokers"])
        if not brokers:
            raise errors.NoBrokersAvailable("no broker is in service yet, as after a restart")
        return min(REPLICAS_MAX, brokers)

    async def _create(self, specs: Sequence[TopicSpec], replicas: int) -> tuple[list[str], list[str]]:
        new = []
        for spec in specs:
            # With three replicas an acknowledged record must outlive the loss of one broker.
            config = {"min.insync.replicas": "2"} if replicas >= REPLICAS_MAX else {}
            config |= spec.config
            new.append(NewTopic(spec.name, spec.partitions, replicas, topic_configs=config))
        response = await self._admin.create_topics(new)
        created, problems = [], []
        for name, code, message in response.topic_errors:
            error = errors.for_code(code)
            if error is errors.NoError:
                created.append(name)
            elif error.retriable:
                raise error(message)
            elif error is not errors.TopicAlreadyExistsError:
                problems.append(f"{name}: {message or error.description}")
        return created, problems

    async def _wait_for_leaders(self, partitions: Mapping[str, int]) -> None:
        """Wait until every broker knows the leaders. A broker that lags would call a new topic unknown."""

        async def known_to(node: int) -> None:
            answer = await self._send(MetadataRequest(sorted(partitions), False), node)
            for topic in answer.to_object()["topics"]:
                leaders = _describe(topic).leaders.values()
                if sum(leader >= 0 for leader in leaders) < partitions[topic["topic"]]:
                    raise errors.LeaderNotAvailableError(topic["topic"])

        async def known() -> None:
            for broker in self._admin._client.cluster.brokers():
                try:
                    async with asyncio.timeout(1):
                        await known_to(broker.nodeId)
                except (TimeoutError, errors.NodeNotReadyError, errors.KafkaConnectionError):
                    continue  # A broker that is down gives no wrong answer.

        await self._connection.ask("wait for the leaders of new topics", known)

    async def stamped_by_producers(self, names: Collection[str]) -> list[str]:
        """Return the topics with `message.timestamp.type=CreateTime`, without those whose settings are not readable."""
        wanted = {TIMESTAMP_TYPE: ""}
        asked = [ConfigResource(ConfigResourceType.TOPIC, name, wanted) for name in sorted(names)]

        async def request() -> list[str]:
            found = []
            for answer in await self._admin.describe_configs(asked):
                for code, message, _type, name, entries, *_ in answer.resources:
                    error = errors.for_code(code)
                    if error in _DENIED:
                        continue
                    if error is not errors.NoError:
                        raise error(message)
                    if any(entry[0] == TIMESTAMP_TYPE and entry[1] != LOG_TIME for entry in entries):
                        found.append(name)
            return found

        return await self._connection.ask("read the settings of topics", request) if asked else []

    async def facts(self, names: Collection[str]) -> ClusterFacts:
        """Return replicas and settings of these topics, as far as they exist and may be read. Raises LogUnavailable."""
        wanted = dict.fromkeys(SETTINGS, "")
        asked = [ConfigResource(ConfigResourceType.TOPIC, name, wanted) for name in sorted(names)]

        async def request() -> ClusterFacts:
            brokers = len((await self._admin.describe_cluster())["brokers"])
            described = (await self._send(MetadataRequest(sorted(names), False))).to_object()["topics"]
            replicas = {
                topic["topic"]: min((len(each["replicas"]) for each in topic["partitions"]), default=0)
                for topic in described
                if topic["partitions"]
            }
            found = {name: TopicFacts(number, {}) for name, number in replicas.items()}
            for answer in await self._admin.describe_configs(asked) if asked else ():
                for code, _message, _type, name, entries, *_ in answer.resources:
                    if errors.for_code(code) is errors.NoError and name in replicas:
                        settings = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
                        found[name] = TopicFacts(replicas[name], settings)
            return ClusterFacts(brokers, found)

        return await self._connection.ask("describe the cluster", request)

    async def bounds(self, topic: str) -> dict[int, Bounds]:
        """See `Log`. Raises NotFound and LogUnavailable."""
        starts = await self._offsets(topic, OffsetResetStrategy.EARLIEST)
        ends = await self._offsets(topic, OffsetResetStrategy.LATEST)
        return {partition: Bounds(starts[partition], ends[partition]) for partition in sorted(ends)}

    async def offsets_at(self, topic: str, at_ms: int) -> dict[int, int]:
        """See `Log`. Raises NotFound and LogUnavailable."""
        # Read first: a record appended between the requests is at or after the end that means "none".
        ends = await self._offsets(topic, OffsetResetStrategy.LATEST)
        found = await self._offsets(topic, max(0, at_ms))
        return {partition: ends[partition] if at < 0 else at for partition, at in sorted(found.items())}

    async def _offsets(self, topic: str, at: int) -> dict[int, int]:
        return await self._connection.ask(f"list offsets of {topic}", lambda: self._list_offsets(topic, at))

    async def _list_offsets(self, topic: str, at: int) -> dict[int, int]:
        described = (await self.describe([topic]))[topic]
        if described.error is not None and not described.leaders:
            raise NotFound(f"there is no topic {topic!r}", where=self._connection.url, remedy="Create it first")
        by_leader: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for partition, leader in described.leaders.items():
            if leader < 0:
                raise errors.LeaderNotAvailableError(f"{topic}/{partition}")
            by_leader[leader].append((partition, at))
        answers = await asyncio.gather(
            *(
                self._send(OffsetRequest(-1, _READ_UNCOMMITTED, [(topic, questions)]), leader)
                for leader, questions in by_leader.items()
            )
        )
        found: dict[int, int] = {}
        for answer in answers:
            for _topic, partitions in answer.topics:
                for partition, code, _timestamp, offset in partitions:
                    if code:
                        raise errors.for_code(code)(f"{topic}/{partition}")
                    found[partition] = offset
        return found

    async def trim(self, partition: TopicPartition, before: int) -> None:
        """Remove records before an offset, or all. Raises LogUnavailable, also without the right."""
        end = (await self.bounds(partition.topic))[partition.partition].end
        wanted = {KafkaPartition(*partition): RecordsToDelete(min(before, end))}
        await self._connection.ask(f"trim {partition.topic}", lambda: self._admin.delete_records(wanted))

    async def committed(self, group: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Commit]:
        """Read the commits of a group. Raises LogUnavailable."""
        return await self._connection.ask(
            f"read the commits of group {group}", lambda: group_commits.read(self._admin._client, group, partitions)
        )

    async def idle_groups(self, groups: Collection[str]) -> list[str]:
        """Return the groups without a member. Raises LogUnavailable.

        Sends one request to each coordinator. A group's coordinator is cached until it denies that role.
        """

        async def request() -> list[str]:
            try:
                answers = await self._describe_groups(groups)
            except errors.GroupAuthorizationFailedError:
                return []
            except errors.KafkaError:
                self._coordinators.clear()
                raise
            for group in answers:
                if group["error_code"]:
                    self._coordinators.pop(group["group"], None)
            return [g["group"] for g in answers if not g["error_code"] and g["state"] in _IDLE and not g["members"]]

        return await self._connection.ask("describe the groups of workers", request) if groups else []

    async def _describe_groups(self, groups: Collection[str]) -> list[dict[str, Any]]:
        by_node: defaultdict[int, list[str]] = defaultdict(list)
        for group in sorted(groups):
            if group not in self._coordinators:
                self._coordinators[group] = await self._admin.find_coordinator(group)
            by_node[self._coordinators[group]].append(group)
        asked = (self._admin.describe_consumer_groups(names, node) for node, names in by_node.items())
        return [group for answers in await asyncio.gather(*asked) for a in answers for group in a.to_object()["groups"]]

    async def commit_idle(self, group: str, commits: Mapping[TopicPartition, Commit]) -> None:
        """Commit without a member, which the coordinator accepts only while the group has none.

        Raises Fenced, LogUnavailable.
        """
        client = self._admin._client

        async def store() -> None:
            node = await self._admin.find_coordinator(group)
            await group_commits.store(lambda request: client.send(node, request), group, -1, "", commits)

        try:
            await self._connection.ask(f"commit of group {group}", store)
        except LogUnavailable as error:
            if isinstance(error.__cause__, group_commits.STALE_MEMBER):
                raise Fenced(
                    f"group {group} has members, which commit for themselves",
                    where=self._connection.url,
                    got=type(error.__cause__).__name__,
                ) from error
            raise

    async def foreign_members(self, group: str) -> list[str]:
        """Return the foreign members of a group, as `client id at host`. Empty without the right to describe it."""

        async def request() -> list[Any]:
            try:
                return list(await self._admin.describe_consumer_groups([group]))
            except errors.GroupAuthorizationFailedError:
                return []

        found = await self._connection.ask(f"describe group {group}", request)
        members = [member for answer in found for one in answer.to_object()["groups"] for member in one["members"]]
        return sorted(
            f"{member['client_id']} at {member['client_host']}"
            for member in members
            if not member["client_id"].endswith(f"-{MEMBER_ROLE}")
        )


def _describe(answer: Mapping[str, Any]) -> TopicDescription:
    code = answer["error_code"]
    leaders = {item["partition"]: item["leader"] for item in answer["partitions"]}
    return TopicDescription(leaders, errors.for_code(code) if code else None, bool(answer.get("is_internal")))
