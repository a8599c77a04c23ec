"""Composition from settings: log, board, topology, agents. For the command line, the client and the test kit."""

import importlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mesh.adapters.ports import Board, Log, ReadLog, TopicSpec
from mesh.core.address import brokers_flaw, redis_flaw
from mesh.core.dead_letters.redrive_log import ledger_topic
from mesh.core.errors import ConfigInvalid, InvalidInput, Problem, TopicsInvalid, TopologyInvalid
from mesh.core.protocol.event import derive_id
from mesh.core.redaction import mask_address
from mesh.core.task.agent import Agent, agent_of
from mesh.core.task.path_check import UncheckedPath, check_paths
from mesh.core.task.signature_check import signature_problems
from mesh.core.text_encoding import decode_text
from mesh.core.topology.loader import load
from mesh.core.topology.model import DAY_MS, AgentSpec, Topology
from mesh.core.topology.partition_counts import find_mismatches, partitions_declared, remedies_for
from mesh.runtime.execution import agent_modules

if TYPE_CHECKING:
    from mesh.adapters.faust.window_source import FaustSource
    from mesh.adapters.sqlite.storage.file import SqliteFile
    from mesh.settings import Settings

RECORDING = "recording"
"""Scheme of an address that names the file of a recording."""
ENDINGS_RETENTION_MS = 60 * 60 * 1_000
"""A worker reads only records that are appended while it runs."""
CLOCK_RETENTION_MS = 60 * 60 * 1_000
WINDOWS_RETENTION_MS = 7 * DAY_MS
CHECKPOINT_SEGMENT_BYTES = 64 * 1_048_576


def load_topology(path: str) -> Topology:
    """Read and validate topics.yaml. Raises TopologyInvalid with all problems, ConfigInvalid if it cannot be read.

    The topology and its problems name the file as seen from the working directory.
    """
    file, path = path, _as_seen(path)
    try:
        text = decode_text(Path(file).read_bytes())
    except FileNotFoundError as error:
        raise ConfigInvalid(
            "there is no such file", where=path, expected="the mesh's topology", remedy="Name it with --topology"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid(
            f"the file is not text: {error.reason} at byte {error.start}",
            where=path,
            expected="UTF-8, or UTF-16 with a byte order mark",
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        what, remedy = f"the file cannot be read: {reason}", "Name it with --topology"
        raise ConfigInvalid(what, where=path, expected="the mesh's topology", remedy=remedy) from error
    return load(text, path=path)


def _as_seen(path: str) -> str:
    """Return a path relative to the working directory, if it lies below it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


class AgentValidation(NamedTuple):
    """The functions that topics.yaml names and that can be imported. `problems`: ordered by line. `unchecked`: field
    paths of topics.yaml that cannot be checked."""

    agents: Mapping[str, Agent]
    problems: Sequence[Problem]
    unchecked: Sequence[UncheckedPath]


def load_agents(topology: Topology) -> Mapping[str, Agent]:
    """Import the functions that topics.yaml names. Raises TopologyInvalid naming all that cannot be imported."""
    agents, problems = import_agents(topology)
    if problems:
        raise TopologyInvalid(topology.path, sorted(problems))
    return agents


def validate_agents(topology: Topology) -> AgentValidation:
    """Import the functions that topics.yaml names and compare their signatures with it."""
    agents, problems = import_agents(topology)
    for name, agent in agents.items():
        problems += signature_problems(topology.agents[name], topology.input_types(name), agent)
    unchecked: list[UncheckedPath] = []
    if len(agents) == sum(not spec.faust for spec in topology.agents.values()):
        wrong, unchecked = check_paths(topology, agents)
        problems += wrong
    return AgentValidation(agents, sorted(problems), unchecked)


def import_agents(topology: Topology) -> tuple[dict[str, Agent], list[Problem]]:
    """Import functions by agent; one problem for each cause of failed imports. Agents of Faust apps are left out."""
    # Resolved before any import, since an imported module may change the working directory.
    agent_modules.use(str(Path(topology.path).resolve().parent))
    agents: dict[str, Agent] = {}
    failed: dict[str, list[tuple[AgentSpec, InvalidInput]]] = {}
    for spec in topology.agents.values():
        if spec.faust:
            continue
        where = f"{topology.path}:{spec.line}"
        try:
            agents[spec.name] = replace(_agent(spec.name, spec.run, where), declared_at=where)
        except InvalidInput as error:
            failed.setdefault(_cause(error), []).append((spec, error))
    return agents, [_problem(*found) for found in failed.values()]


def _cause(error: InvalidInput) -> str:
    """Return a text that is equal for all agents with the same cause of failure."""
    cause = error.__cause__
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        return cause.name
    return str(error) if cause is None else _reason(cause)


def _problem(first: tuple[AgentSpec, InvalidInput], *more: tuple[AgentSpec, InvalidInput]) -> Problem:
    spec, error = first
    what = error.what
    if repr(spec.name) not in what:
        what = f"agent {spec.name!r}: {error.where}: {what}"
    if error.expected:
        what += f"; expected {error.expected}"
    if more:
        others = f"{len(more)} more agent{'s' if len(more) > 1 else ''}"
        what += f"; {others} cannot be imported for it, too: {', '.join(other.name for other, _ in more)}"
    return Problem(spec.line, what, error.remedy)


def open_log(settings: "Settings", *, client: str = "mesh") -> Log:
    """Make the log that the settings name, not yet started. Only the library of that backend is imported."""
    scheme, _, rest = settings.log.partition(":")
    if scheme == "sqlite":
        from mesh.adapters.sqlite import SqliteLog

        return SqliteLog(
            _path(rest),
            synchronous=settings.synchronous,
            append_timeout_ms=settings.append_timeout_ms,
            record_bytes_max=settings.record_bytes_max,
            plain_headers=settings.internal_headers == "plain",
        )
    if scheme == "kafka":
        from mesh.adapters.kafka import KafkaLog

        return KafkaLog(
            _brokers(settings.log),
            client_id=client,
            security=settings.kafka,
            append_timeout_ms=settings.append_timeout_ms,
            record_bytes_max=settings.record_bytes_max,
            plain_headers=settings.internal_headers == "plain",
        )
    raise _unknown_log(settings.log)


def open_read_log(settings: "Settings", *, client: str = "mesh") -> ReadLog:
    """Make the log that the settings name, for reading only, not yet started.

    It writes nothing: an embedded file may belong to another user, and a Kafka user needs no right but Read and
    Describe on the topics.
    """
    scheme, _, rest = settings.log.partition(":")
    if scheme == "sqlite":
        from mesh.adapters.sqlite import SqliteReadLog

        return SqliteReadLog(_path(rest))
    if scheme == "kafka":
        from mesh.adapters.kafka import KafkaReadLog

        return KafkaReadLog(
            _brokers(settings.log),
            client_id=client,
            security=settings.kafka,
            record_bytes_max=settings.record_bytes_max,
        )
    if scheme == RECORDING:
        from mesh.adapters.recording import RecordingLog

        return RecordingLog(rest)
    raise _unknown_log(settings.log)


def open_window_source(settings: "Settings", topology: Topology) -> "FaustSource | None":
    """Return the Faust app that reads for a monitor on Kafka. None on another log, and where Kafka wants credentials:
    then the monitor reads as other services do."""
    if not settings.log.startswith("kafka:") or settings.kafka:
        return None
    from mesh.adapters.faust.window_source import FaustSource

    return FaustSource(_brokers(settings.log), topology)


def recorded_topology(settings: "Settings") -> Topology | None:
    """Return the topology of the recording that the settings name as the log; None for another log.

    Raises NotFound, LogUnavailable, InvalidInput as the recording itself does.
    """
    scheme, _, rest = settings.log.partition(":")
    if scheme != RECORDING:
        return None
    from mesh.adapters.recording import recorded_head

    return recorded_head(rest).topology


def _brokers(url: str) -> str:
    brokers = url.partition(":")[2].removeprefix("//").rstrip("/")
    _refuse("log", url, brokers_flaw(brokers), "kafka://HOST:PORT[,HOST:PORT]")
    return brokers


def _unknown_log(url: str) -> ConfigInvalid:
    if url.startswith(f"{RECORDING}:"):
        return ConfigInvalid(
            "a recording can only be read",
            where="setting 'log'",
            expected="sqlite:PATH or kafka://HOST:PORT",
            got=mask_address(url),
            remedy="Commands that only read take it: `mesh run list`, `run show`, `replay`, `verify`, `topics read`",
        )
    return ConfigInvalid(
        f"no log is known by {url.partition(':')[0]!r}",
        where="setting 'log'",
        expected="sqlite:PATH or kafka://HOST:PORT",
        got=mask_address(url),
    )


def open_board(settings: "Settings", prefix: str, *, beside: Log | None = None) -> Board:
    """Make the board that the settings name, not yet started; with the embedded log it is in the same file.

    `prefix`: the mesh's prefix; keys begin with it unless the setting `board_prefix` names another. `beside`: the log
    of this process; if it is the same file, both share one writer and one set of connections.
    """
    prefix = settings.board_prefix or prefix
    url = settings.board or (settings.log if settings.log.startswith("sqlite:") else "")
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        from mesh.adapters.sqlite import SqliteBoard, SqliteLog

        path = Path(_path(rest))
        file: Path | SqliteFile = path
        if isinstance(beside, SqliteLog) and beside.file.path.resolve() == path.resolve():
            file = beside.file
        return SqliteBoard(
            file,
            prefix=prefix,
            synchronous=settings.synchronous,
            timeout_ms=settings.board_timeout_ms,
            mirrored=url != settings.log,
        )
    if scheme in ("redis", "rediss", "unix"):
        from mesh.adapters.redis.board import RedisBoard

        _refuse("board", url, redis_flaw(url), "redis://HOST:PORT/DB")
        return RedisBoard(url, prefix=prefix, timeout_ms=settings.board_timeout_ms)
    raise ConfigInvalid(
        "no board is set" if not url else f"no board is known by {scheme!r}",
        where="setting 'board'",
        expected="redis://HOST:PORT or sqlite:PATH",
        remedy="Set MESH_BOARD=redis://127.0.0.1:6379; with Kafka the board has no default, since processes share it",
    )


def run_index_files(settings: "Settings", topology: Topology) -> list[str]:
    """Return where the index of runs may lie, the preferred place first. None where it is off, and for a recording.

    Beside the embedded file, or in the folder that the setting names. Else, and where that folder cannot be written,
    in the data folder of this user, under a name made of log and mesh.
    """
    from mesh.settings import data_folder

    scheme, _, rest = settings.log.partition(":")
    if settings.run_index == "off" or scheme not in ("sqlite", "kafka"):
        return []
    name = f"{topology.prefix}-{derive_id(settings.log, topology.prefix)[:16]}.db"
    if settings.run_index:
        first = [Path(settings.run_index) / name]
    else:
        first = [Path(f"{_path(rest)}.runs")] if scheme == "sqlite" else []
    return [str(path) for path in (*first, data_folder() / "runs" / name)]


def _refuse(setting: str, url: str, flaw: str, expected: str) -> None:
    """Raise ConfigInvalid if an address has a flaw."""
    if flaw:
        remedy = "Set it in mesh.toml, by environment or by an option; `mesh config show --origin` says where it is set"
        got = mask_address(url)
        raise ConfigInvalid(flaw, where=f"setting {setting!r}", expected=expected, got=got, remedy=remedy)


def topic_specs(topology: Topology) -> list[TopicSpec]:
    """Return every topic that the mesh needs, with its configuration.

    Records bear append times: decisions use that clock, and no record is older than its topic's retention when it
    arrives, whatever time its producer names. topics.yaml sets retention times (`mesh.retention`,
    `topics.NAME.retention`). Recovery never needs a removed record of the inbox, since checkpoints are written more
    often. The owner of checkpoints trims them after a later one, in segments small enough to be freed. The board's
    changes are trimmed likewise. Kafka must not compact them: the last record of a key is not always its newest
    (`core.board.changelog`).
    """
    log_time = {"message.timestamp.type": "LogAppendTime"}
    kept = topology.retention

    def kept_for(retention_ms: int) -> dict[str, str]:
        return {**log_time, "retention.ms": str(retention_ms)}

    compacted = {**log_time, "cleanup.policy": "compact"}
    kept_by_hand = {**kept_for(-1), "segment.bytes": str(CHECKPOINT_SEGMENT_BYTES)}
    configs = {
        topology.inbox: kept_for(kept.inbox_ms),
        topology.outcomes: kept_for(kept.outcomes_ms),
        topology.dead: kept_for(kept.dead_ms),
        **dict.fromkeys(map(topology.tasks, topology.agents), kept_for(kept.tasks_ms)),
        **dict.fromkeys((topology.control, topology.topologies, ledger_topic(topology)), compacted),
        topology.endings: kept_for(ENDINGS_RETENTION_MS),
        topology.checkpoints: kept_by_hand,
        topology.board: kept_by_hand,
        topology.clock: kept_for(CLOCK_RETENTION_MS),
        topology.windows: {**kept_for(WINDOWS_RETENTION_MS), "cleanup.policy": "compact,delete"},
        **{rule.name: kept_for(rule.retention_ms) for rule in topology.topics.values()},
    }
    partitions = partitions_declared(topology)
    return [TopicSpec(name, partitions[name], config) for name, config in configs.items()]


async def check_topics(log: Log, topology: Topology) -> None:
    """Raise TopicsInvalid naming every topic that is missing, has another number of partitions, or takes its times from
    producers. With such times Kafka's retention deletes old records before they are read."""
    found, specs = await log.topics(), topic_specs(topology)
    missing = [f"{spec.name} is missing" for spec in specs if spec.name not in found]
    other = find_mismatches(topology, found)
    stamped = await log.stamped_by_producers([spec.name for spec in specs if spec.name in found])
    timed = [f"{name} has message.timestamp.type=CreateTime, expected LogAppendTime" for name in stamped]
    kafka = log.url.startswith("kafka:")
    remedies = [
        *["`mesh topics create` makes the missing ones"] * bool(missing),
        *["Topics that this user may not Describe count as missing: see `mesh export acl`"] * (bool(missing) and kafka),
        *["The number of partitions is frozen"] * bool(other),
        *remedies_for(other),
        *[_set_log_time(log, name) for name in stamped],
    ]
    if missing or other or timed:
        raise TopicsInvalid(log.url, [*missing, *(topic.text for topic in other), *timed], remedy="; ".join(remedies))


def _set_log_time(log: Log, topic: str) -> str:
    """Return the command that switches a topic to append times."""
    brokers = log.url.removeprefix("kafka://")
    change = "--alter --add-config message.timestamp.type=LogAppendTime"
    return f"`kafka-configs.sh --bootstrap-server {brokers} --entity-type topics --entity-name {topic} {change}`"


def _agent(name: str, run: str, where: str) -> Agent:
    module_name, _, function_name = run.partition(":")
    remedy = "Modules are searched in the folder of topics.yaml; check both names"
    try:
        function = getattr(agent_modules.load(module_name), function_name)
    except InvalidInput:
        raise
    except agent_modules.NameTaken as error:
        what = f"agent {name!r} cannot be imported from {run!r}: {error}"
        raise InvalidInput(what, code="bad_agent", where=where, remedy=f"Rename {error.file}") from error
    except (Exception, SystemExit) as error:  # the author's code may raise anything
        what = f"agent {name!r} cannot be imported from {run!r}: {_reason(error)}"
        raise InvalidInput(what, code="bad_agent", where=where, remedy=remedy) from error
    return agent_of(function)


def _reason(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}, line {error.lineno})"
    text = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    outside = [f for f in frames if f.filename not in (__file__, agent_modules.__file__, importlib.__file__)]
    return f"{text} ({outside[-1].filename}, line {outside[-1].lineno})" if outside else text


def _path(rest: str) -> str:
    return rest.removeprefix("//") or ".mesh/mesh.db"
