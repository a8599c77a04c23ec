"""Digest: the events of a day on the board, for the team to read in the morning.

    issues/digest/2024-05-01/count/total          how many events
    issues/digest/2024-05-01/count/issue.routed   how many of a kind; likewise pr.routed, needs.human, event.noted
    issues/digest/2024-05-01/lines                the last 50 lines worth reading, in order of arrival

The day is that of the webhook, not of the clock: a replay of last week counts for last week. The board recognises
counters and appends of a repeated task, so an event is counted once.
"""

from mesh import Context, agent

from .events import EventNoted, IssueRouted, NeedsHuman, PullRouted

LINES_MAX = 50
LINE_BYTES_MAX = 400


@agent
async def digest(event: IssueRouted | PullRouted | NeedsHuman | EventNoted, ctx: Context) -> None:
    """Count one ended event, and write a line if it is worth reading."""
    day = f"issues/digest/{event.day}"
    await ctx.board.add(f"{day}/count/total")
    await ctx.board.add(f"{day}/count/{event.event_type}")
    # The board takes 64 KiB a value, so lines are cut by bytes; blanks become one, which leaves no control character.
    line = " ".join(_line(event).split()).encode()[:LINE_BYTES_MAX].decode(errors="ignore")
    if line:
        await ctx.board.append(f"{day}/lines", line, items_max=LINES_MAX)


def _line(event: IssueRouted | PullRouted | NeedsHuman | EventNoted) -> str:
    """Return one line for people; '' for routine events and moderated items."""
    if isinstance(event, EventNoted):
        return "" if event.importance == "info" else f"[{event.importance}] {event.summary} → {event.team}"
    if isinstance(event, NeedsHuman):
        return f"[human] {event.item} {event.action}: {event.title} → {event.team}? {', '.join(event.reasons[-1:])}"
    if event.queue == "moderation":
        return ""
    what = f"{event.size} {event.risk} risk" if isinstance(event, PullRouted) else f"{event.severity} {event.kind}"
    return f"[{event.queue}] {event.item} {event.action}: {event.title} ({what}, {event.area}) → {event.team}"
