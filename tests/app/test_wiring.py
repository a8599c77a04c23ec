"""Settings become logs, boards and agents; what cannot says why."""

import asyncio
import threading
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mesh.adapters.ports import TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import (
    check_topics,
    load_agents,
    load_topology,
    open_board,
    open_log,
    open_read_log,
    recorded_topology,
    topic_specs,
)
from mesh.core.errors import BoardUnavailable, ConfigInvalid, NotFound, TopicsInvalid, TopologyInvalid
from mesh.core.topology.loader import load
from mesh.core.topology.model import OWN_TOPICS, SERVICE_GROUPS
from mesh.settings import Settings

TEXT = """
mesh: {{name: t, prefix: mesh, inbox: {{partitions: 2}}}}
topics: {{asks: {{ingress: ask, partitions: 1}}, answers: {{egress: answer, partitions: 1}}}}
agents: {{echo: {{run: "{run}", on: ask, emits: answer}}}}
"""


def test_an_unknown_log_or_board_names_what_is_known() -> None:
    with pytest.raises(ConfigInvalid, match="sqlite:PATH or kafka://HOST:PORT"):
        open_log(Settings(log="nats://x"))
    with pytest.raises(ConfigInvalid, match="redis://HOST:PORT"):
        open_board(Settings(board="memcached://x"), "mesh")
    with pytest.raises(ConfigInvalid, match="sqlite:PATH or kafka://HOST:PORT"):
        open_read_log(Settings(log="nats://x"))
    with pytest.raises(ConfigInvalid, match="a recording can only be read"):
        open_log(Settings(log="recording:run.jsonl"))


def test_a_log_for_reading_has_no_way_to_write(tmp_path: Path) -> None:
    logs = [open_read_log(Settings(log=f"{scheme}:{tmp_path / 'x'}")) for scheme in ("sqlite", "recording")]
    logs.append(open_read_log(Settings(log="kafka://127.0.0.1:1")))
    assert [log.url for log in logs] == [
        f"sqlite:{tmp_path / 'x'}",
        f"recording:{tmp_path / 'x'}",
        "kafka://127.0.0.1:1",
    ]
    for log in logs:
        assert not {"append", "join", "trim", "create_topics", "commit_idle"} & set(dir(log))
    assert not list(tmp_path.iterdir()), "nothing is made before it is started, nor then"


def test_the_topology_of_a_recording_is_its_own() -> None:
    golden = Path(__file__).parents[1] / "golden" / "recording.jsonl"
    found = recorded_topology(Settings(log=f"recording:{golden}"))
    assert found is not None
    assert (found.name, sorted(found.agents)) == ("golden", ["first", "second"])
    assert recorded_topology(Settings(log="sqlite:mesh.db")) is None
    with pytest.raises(NotFound, match="no such file"):
        recorded_topology(Settings(log="recording:none.jsonl"))


def test_with_kafka_the_board_has_no_default() -> None:
    with pytest.raises(ConfigInvalid, match="MESH_BOARD"):
        open_board(Settings(log="kafka://127.0.0.1:9092"), "mesh")


def test_a_missing_topology_is_named() -> None:
    with pytest.raises(ConfigInvalid, match="no such file"):
        load_topology("/nowhere/topics.yaml")


def test_a_topology_that_cannot_be_read_is_reported_as_seen_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "below").write_text(TEXT.format(run="x:y"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigInvalid, match=r"^folder: the file cannot be read: Is a directory; expected"):
        load_topology(str(tmp_path / "folder"))
    with pytest.raises(ConfigInvalid, match=r"^below/x: the file cannot be read: Not a directory; expected"):
        load_topology(str(tmp_path / "below" / "x"))
    assert load_topology(str(tmp_path / "below")).path == "below"
    monkeypatch.chdir(tmp_path / "folder")
    assert load_topology(str(tmp_path / "below")).path == str(tmp_path / "below")


@pytest.mark.parametrize("run", ["no.such.module:f", "tests.app.test_wiring:no_such_function"])
def test_an_agent_that_cannot_be_imported_names_its_line(run: str) -> None:
    with pytest.raises(TopologyInvalid, match=r"topics\.yaml:4: agent 'echo' cannot be imported"):
        load_agents(load(TEXT.format(run=run)))


def test_an_agents_module_that_ends_the_process_is_a_problem_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "my_leaving_agents.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "topics.yaml").write_text(TEXT.format(run="my_leaving_agents:echo"))
    with pytest.raises(TopologyInvalid, match="cannot be imported"):
        load_agents(load_topology(str(tmp_path / "topics.yaml")))


def test_an_agent_beside_its_topology_is_found(tmp_path: Path) -> None:
    (tmp_path / "my_shop_agents.py").write_text("def echo(ask: dict) -> dict:\n    return ask\n")
    (tmp_path / "topics.yaml").write_text(TEXT.format(run="my_shop_agents:echo"))
    agents = load_agents(load_topology(str(tmp_path / "topics.yaml")))
    assert not agents["echo"].is_async


async def test_the_embedded_board_shares_the_file_of_the_log_beside_it(tmp_path: Path) -> None:
    settings = Settings(log=f"sqlite:{tmp_path / 'mesh.db'}")
    log = open_log(settings)
    await log.start()
    threads = threading.active_count()
    board, alone = open_board(settings, "mesh", beside=log), open_board(settings, "mesh")
    await board.start()
    assert threading.active_count() == threads
    await alone.start()
    assert threading.active_count() > threads, "a file of its own has a writer of its own"
    await alone.close()
    await board.put("k", b"1")
    await board.close()
    assert await log.topics() == {}, "the log goes on"
    await log.close()


async def test_a_board_elsewhere_does_not_share_the_file_of_the_log(tmp_path: Path) -> None:
    settings = Settings(log=f"sqlite:{tmp_path / 'mesh.db'}", board=f"sqlite:{tmp_path / 'board.db'}")
    assert open_board(settings, "mesh", beside=open_log(settings)).url == f"sqlite:{tmp_path / 'board.db'}"


async def test_the_embedded_board_has_the_deadline_that_was_set(tmp_path: Path) -> None:
    settings = Settings(log=f"sqlite:{tmp_path / 'mesh.db'}", board_timeout_ms=60)
    log = open_log(settings)
    await log.start()
    assert isinstance(log, SqliteLog)
    board = open_board(settings, "mesh", beside=log)
    await board.start()
    begun, blocking = threading.Event(), threading.Event()

    def block(_: object) -> bool:
        begun.set()
        return blocking.wait(20)

    blocked = asyncio.ensure_future(log.file.write(block, operation="test", wakes=()))
    try:
        async with asyncio.timeout(10):
            while not begun.is_set():  # noqa: ASYNC110  # another thread sets it
                await asyncio.sleep(0.001)
        with pytest.raises(BoardUnavailable, match="60 ms"):
            await board.put("k", b"1")
    finally:
        blocking.set()
    assert await blocked
    await board.close()
    await log.close()


async def test_all_topics_that_are_wrong_are_named_at_once(tmp_path: Path) -> None:
    topology = load(TEXT.format(run="x:y"))
    log = open_log(Settings(log=f"sqlite:{tmp_path / 'mesh.db'}"))
    await log.start()
    await log.create_topics([TopicSpec("asks", 3)])
    with pytest.raises(TopicsInvalid) as raised:
        await check_topics(log, topology)
    assert len(raised.value.problems) == len(topic_specs(topology))
    assert "asks has 3 partitions, 1 declared" in raised.value.problems
    assert "mesh.inbox is missing" in raised.value.problems
    await log.create_topics([spec for spec in topic_specs(topology) if spec.name != "asks"])
    with pytest.raises(TopicsInvalid, match="asks has 3 partitions"):
        await check_topics(log, topology)
    await log.close()


def test_topics_are_kept_for_as_long_as_topics_yaml_says() -> None:
    kept = {spec.name: spec.config.get("retention.ms") for spec in topic_specs(load(TEXT.format(run="x:y")))}
    assert kept["mesh.tasks.echo"] == kept["asks"] == "604800000"
    assert kept["mesh.inbox"] == kept["mesh.outcomes"] == "2592000000"
    assert (kept["mesh.dead"], kept["mesh.control"]) == ("7776000000", None)


def test_what_is_said_about_stops_is_never_lost_by_age_and_lies_in_one_order() -> None:
    (control,) = (spec for spec in topic_specs(load(TEXT.format(run="x:y"))) if spec.name == "mesh.control")
    assert (control.partitions, control.config["cleanup.policy"]) == (1, "compact")


def test_checkpoints_lie_beside_the_inbox_and_are_never_lost_by_time() -> None:
    topology = load(TEXT.format(run="x:y"))
    specs = {spec.name: spec for spec in topic_specs(topology)}
    checkpoints, kept = specs[topology.checkpoints], specs[topology.topologies]
    assert checkpoints.partitions == specs[topology.inbox].partitions
    assert checkpoints.config["retention.ms"] == "-1"
    assert "cleanup.policy" not in checkpoints.config
    assert (kept.partitions, kept.config["cleanup.policy"]) == (1, "compact")


def test_changes_of_the_board_are_kept_by_hand_since_compaction_could_keep_an_older_one() -> None:
    (changes,) = (spec for spec in topic_specs(load(TEXT.format(run="x:y"))) if spec.name == "mesh.board")
    assert (changes.partitions, changes.config["retention.ms"]) == (1, "-1")
    assert "cleanup.policy" not in changes.config


@pytest.mark.parametrize("log", ["kafka://h:port", "kafka://", "kafka://[::1", "kafka:h:99999", "kafka://h:1/x"])
def test_an_address_of_no_broker_is_refused_before_it_is_connected_to(log: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"setting 'log': .*expected kafka://HOST:PORT"):
        open_log(Settings(log=log))


@pytest.mark.parametrize("board", ["redis://h:port", "redis://", "redis://h/nine", "redis://[::1"])
def test_an_address_of_no_redis_is_refused_before_it_is_connected_to(board: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"setting 'board': .*expected redis://HOST:PORT/DB"):
        open_board(Settings(log="kafka://h:1", board=board), "mesh")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_topology_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    text = "# möwe\n" + TEXT.format(run="desk:echo")
    (tmp_path / "topics.yaml").write_bytes(text.encode(encoding))
    assert "echo" in load_topology(str(tmp_path / "topics.yaml")).agents


@given(
    st.lists(st.from_regex(r"[a-c](\.(tasks|[a-c]|inbox))?", fullmatch=True), min_size=2, max_size=2, unique=True),
    st.lists(st.sampled_from(["inbox", "tasks", "dead", "a", "b", "worker", "a_b", "a-b"]), max_size=3, unique=True),
)
def test_no_two_meshes_share_a_name(prefixes: list[str], names: list[str]) -> None:
    """Topics and groups of two meshes with the same agents."""
    seen: set[str] = set()
    for prefix in prefixes:
        agents = "".join(f"  {name}: {{run: 'm:f', on: in}}\n" for name in [*names, "last"])
        try:
            topology = load(f"mesh: {{prefix: {prefix}}}\ntopics: {{t.in: {{ingress: in}}}}\nagents:\n{agents}")
        except TopologyInvalid:
            assume(False)
        own = {spec.name for spec in topic_specs(topology)} - topology.topics.keys()
        groups = {f"group {topology.group(name)}" for name in (*SERVICE_GROUPS, *topology.agents)}
        assert len(own) == len(OWN_TOPICS) + len(topology.agents)
        assert len(groups) == len(SERVICE_GROUPS) + len(topology.agents)
        assert not seen & (own | groups)
        seen |= own | groups


def test_an_agent_of_a_faust_app_is_not_imported() -> None:
    text = TEXT.format(run="no_such_module:echo")
    topology = load(text.replace("on: ask", "on: ask, faust: words"))
    assert topology.agents["echo"].faust == topology.group("echo") == "words"
    assert load_agents(topology) == {}
    assert topology.digest == load(text).digest, "open runs go on, also when another process runs the agent"
