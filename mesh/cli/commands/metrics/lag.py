"""`mesh lag`: how far each consumer group is behind."""

from typing import TYPE_CHECKING, Any

from mesh.cli.framework.options import command, verb
from mesh.cli.framework.output import Piece
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import took

if TYPE_CHECKING:
    from mesh.core.run.control import Switch
    from mesh.core.scaling.lag import GroupLag

app = verb()


@command(app, "lag", example="mesh lag --json | jq 'select(.age_ms > 60000)'")
async def lag(session: Session) -> None:
    """Show how far each consumer group is behind in each topic that it reads.

    LAG is the number of records that the group has not committed yet, OLDEST the age of the first of them in log time.
    IN FLIGHT is how many of them workers may be at now: at most `lanes` of an agent in each process. Services read in
    batches and have none. A monitor is shown once one has run.
    """
    from mesh.runtime.control_follower import control_now
    from mesh.runtime.lag import group_lags

    async with session.read_log() as log:
        control = await control_now(log, session.topology)
        lags = await group_lags(log, session.topology)
    stops = {each.consumer: control.stop_of(each.consumer) for each in lags if each.consumer in session.topology.agents}
    session.output.listing(
        ("CONSUMER", "TOPIC", ">LAG", ">OLDEST", ">IN FLIGHT", "STOPPED"),
        lags,
        lambda each: _row(each, stops.get(each.consumer)),
        lambda each: _json(each, stops.get(each.consumer)),
    )


def lag_cells(lag: "GroupLag") -> list[Piece]:
    """Return records behind, age of the oldest, and in flight, as cells of a table."""
    age = "unknown" if lag.age_ms is None else took(lag.age_ms) if lag.lag else ""
    flight = "" if lag.in_flight is None else f"{lag.in_flight:,}"
    return [(f"{lag.lag:,}", "yellow" if lag.lag else ""), age, flight]


def _row(lag: "GroupLag", stop: "Switch | None") -> list[Piece]:
    return [
        (lag.consumer, "bold"),
        (lag.topic, "dim"),
        *lag_cells(lag),
        ("" if stop is None else f"by {stop.by}", "red"),
    ]


def _json(lag: "GroupLag", stop: "Switch | None") -> dict[str, Any]:
    return {
        "consumer": lag.consumer,
        "topic": lag.topic,
        "lag": lag.lag,
        "age_ms": lag.age_ms,
        "in_flight": lag.in_flight,
        "partitions": lag.partitions,
        "stopped": stop is not None,
    }
