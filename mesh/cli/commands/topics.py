"""`mesh topics`: list, check and create the topics of the mesh; read any topic."""

from mesh.cli.commands.topics_read import add_read
from mesh.cli.framework.options import command, noun
from mesh.cli.framework.output import Piece
from mesh.cli.framework.session import Session, short
from mesh.cli.framework.text import counted
from mesh.core.dead_letters.redrive_log import ledger_topic

app = noun("Show, check, create and read topics.")


@command(app, "list", example="mesh topics list --json")
async def list_topics(session: Session) -> None:
    """List the topics with their use and their number of records."""
    from mesh.app.wiring import topic_specs

    rows: list[list[Piece]] = []
    async with session.log() as log:
        found = await log.topics()
        for spec in topic_specs(session.topology):
            bounds = await log.bounds(spec.name) if spec.name in found else {}
            records = sum(b.end - b.start for b in bounds.values())
            use = _use(session, spec.name)
            there = spec.name in found
            session.output.emit(
                {
                    "topic": spec.name,
                    "use": use,
                    "partitions": found.get(spec.name),
                    "declared_partitions": spec.partitions,
                    "records": records if there else None,
                }
            )
            shown: Piece = f"{found[spec.name]}" if there else ("missing", "red")
            rows.append([spec.name, shown, f"{records:,}" if there else "", (use, "dim")])
    session.output.table(("TOPIC", ">PARTITIONS", ">RECORDS", "USE"), rows)


@command(app, "check", example="mesh topics check --log kafka://broker:9092")
async def check(session: Session) -> None:
    """Check that all topics exist as declared.

    Every topic must have the declared number of partitions and, on Kafka, message.timestamp.type=LogAppendTime.

    All problems are reported at once.
    """
    from mesh.app.wiring import check_topics, topic_specs

    async with session.log() as log:
        await check_topics(log, session.topology)
    number = len(topic_specs(session.topology))
    session.output.emit({"ok": True, "topics": number})
    session.output.print(("✓ ", "green"), f"{counted(number, 'topic')} as declared", (f"  {short(log.url)}", "dim"))


@command(app, "create", example="mesh topics create --log kafka://broker:9092")
async def create(session: Session) -> None:
    """Create the missing topics.

    Existing topics are only checked.
    """
    from mesh.app.wiring import check_topics, topic_specs

    specs = topic_specs(session.topology)
    async with session.log(create=True) as log:
        made = await log.create_topics(specs)
        for name in made:
            session.output.emit({"topic": name, "created": True})
            session.output.print(("+ ", "green"), name)
        await check_topics(log, session.topology)
    there = len(specs) - len(made)
    session.output.note(f"{len(made)} created, {there} there already", (f"  {short(session.settings.log)}", "dim"))


add_read(app)


def _use(session: Session, name: str) -> str:
    topology = session.topology
    rule = topology.topics.get(name)
    if rule is not None:
        comes = [f"ingress {rule.ingress}"] if rule.ingress else []
        return ", ".join([*comes, *([f"egress {', '.join(rule.egress)}"] if rule.egress else [])])
    known = {
        topology.inbox: "all events of runs",
        topology.outcomes: "outcomes of runs",
        topology.dead: "dead letters",
        topology.control: "stops and faults",
        topology.endings: "running tasks of runs that ended",
        topology.clock: "the time of the log, for processes that start",
        topology.board: "changes of the board, to rebuild it",
        topology.checkpoints: "checkpoints of the inbox",
        topology.topologies: "topologies of runs",
        topology.windows: "numbers of windows of time",
        ledger_topic(topology): "ledger of redriven dead letters",
    }
    agent = name.removeprefix(topology.tasks(""))
    return known.get(name, f"tasks of {agent}")
