"""Two agents: `triage` decides who handles a ticket, `answer` writes a first answer."""

from mesh import Context, Payload, agent

TEAMS = {"invoice": "billing", "refund": "billing", "error": "support", "password": "support"}


class TicketOpened(Payload, type="ticket.opened"):
    id: str
    text: str


class TicketTriaged(Payload, type="ticket.triaged"):
    id: str
    team: str


class TicketAnswered(Payload, type="ticket.answered"):
    id: str
    team: str
    number: int
    text: str


@agent
async def triage(ticket: TicketOpened) -> TicketTriaged:
    """Choose the team by the words of the ticket."""
    words = ticket.text.lower().split()
    team = next((TEAMS[word] for word in words if word in TEAMS), "support")
    return TicketTriaged(id=ticket.id, team=team)


@agent
async def answer(ticket: TicketTriaged, ctx: Context) -> TicketAnswered:
    """Answer with a number, which a counter on the board gives to each ticket of a team."""
    count = await ctx.board.add(f"tickets/{ticket.team}")
    text = f"Thank you. The {ticket.team} team has your ticket; its number is {count.value}."
    return TicketAnswered(id=ticket.id, team=ticket.team, number=count.value, text=text)
