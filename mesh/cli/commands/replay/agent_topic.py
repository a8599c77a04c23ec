"""`mesh replay --agent NAME`: recorded tasks of one agent, given to its function of today."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from mesh.cli.commands.replay.modes import misused, read_count
from mesh.cli.commands.replay.sandbox_options import CallOptions, ignored_fields
from mesh.cli.commands.replay.saved_file import saved_file
from mesh.cli.framework.logs import hide_sandbox
from mesh.cli.framework.selectors import TimeSpan
from mesh.cli.framework.session import Session
from mesh.cli.framework.signals import terminable
from mesh.cli.views import answer_view
from mesh.core.errors import InvalidInput, NotFound, TopologyInvalid
from mesh.core.suggest import did_you_mean

if TYPE_CHECKING:
    from mesh.app.agent_replay import Compared
    from mesh.core.task.agent import Agent
    from mesh.core.topology.model import Topology
    from mesh.operations.replay.task_answers import TaskAnswer

SHOWN_MAX = 3
"""Answers shown with all their differences."""


def swap_of(topology: "Topology", text: str) -> tuple[str, str]:
    """Read `NAME` or `NAME=module:function` of `--agent`."""
    name, _, run = text.partition("=")
    if name not in topology.agents:
        raise NotFound(
            f"no agent is called {name[:64]!r}",
            where=topology.path,
            expected=", ".join(topology.agents),
            remedy=did_you_mean(name, topology.agents),
        )
    if "=" in text and (not run.partition(":")[0] or not run.partition(":")[2]):
        raise InvalidInput(
            "this names no function", code="bad_value", where="--agent", expected="NAME=module:function", got=text[:64]
        )
    return name, run


def todays_topology(session: Session) -> "Topology":
    """Return the topology whose functions are called: the file of today, also where a recording has one of its own."""
    from mesh.app.wiring import load_topology

    return load_topology(session.settings.topology)


def functions_of(topology: "Topology", swaps: dict[str, str], only: Sequence[str] = ()) -> "dict[str, Agent]":
    """Import the functions of today, some of them swapped. Raises TopologyInvalid if one does not fit its agent."""
    from mesh.app.wiring import import_agents
    from mesh.core.task.signature_check import signature_problems

    specs = {
        name: replace(spec, run=swaps.get(name) or spec.run)
        for name, spec in topology.agents.items()
        if not only or name in only
    }
    agents, problems = import_agents(replace(topology, agents=specs))
    for name, agent in agents.items():
        problems += signature_problems(specs[name], topology.input_types(name), agent)
    if problems:
        raise TopologyInvalid(topology.path, sorted(problems))
    return agents


async def replay_tasks(session: Session, span: TimeSpan, options: CallOptions, limits: Sequence[str]) -> int:
    """Replay the tasks of one agent and print. `limits`: at most how many. Returns 1 if an answer differs."""
    from mesh.app.agent_replay import replay_agent
    from mesh.app.recorded_board import recorded_board
    from mesh.core.board.past_values import MemoryPast, PastBoard
    from mesh.core.replay.answer_diff import SAME
    from mesh.operations.replay.task_answers import Period, Skipped, read_task_answers

    hide_sandbox(session.output)
    output, topology, ignored = session.output, todays_topology(session), ignored_fields(options.ignore)
    if len(options.agent or ()) != 1:
        raise misused("one agent at a time", "--agent", "Give it once")
    name, run = swap_of(topology, (options.agent or ("",))[0])
    limit = read_count(limits, "tasks")
    agent = functions_of(topology, {name: run}, [name])[name]
    summary, skipped = answer_view.AnswerCounts(name, agent.where), Skipped()
    async with session.read_log() as log, AsyncExitStack() as stack:
        period = Period(*span.on(log.now_ms()))
        past: PastBoard = MemoryPast()
        if agent.context is not None:
            past = await stack.enter_async_context(recorded_board(log, topology, session.settings, period))
        saving = nullcontext() if options.save is None else saved_file(options.save)
        with terminable(), saving as file, output.progress(limit) as bar:

            def count_result(compared: "Compared") -> None:
                summary.add(compared, SHOWN_MAX)
                bar.advance(1, f"{summary.total:,} tasks")
                if compared.verdict != SAME:
                    facts = answer_view.compared_json(compared)
                    output.emit(facts)
                    if file is not None:
                        file.write(orjson.dumps(facts, option=orjson.OPT_APPEND_NEWLINE))

            pairs = read_task_answers(log, topology, name, period, skipped)
            async with aclosing(pairs) as all_pairs, aclosing(_first(all_pairs, limit)) as batches:
                await replay_agent(
                    topology,
                    name,
                    agent,
                    batches,
                    past,
                    on_result=count_result,
                    jobs=options.jobs,
                    ignored=ignored,
                )
    answer_view.summary(output, summary, skipped)
    if options.save is not None:
        output.note(("saved: ", "dim"), options.save)
    return 1 if summary.differing else 0


async def _first(
    batches: "AsyncIterator[Sequence[TaskAnswer]]", limit: int | None
) -> "AsyncGenerator[Sequence[TaskAnswer]]":
    """Yield the first `limit` pairs; None: all."""
    left = limit
    async for batch in batches:
        yield batch if left is None else batch[:left]
        if left is not None and (left := left - len(batch)) <= 0:
            return
