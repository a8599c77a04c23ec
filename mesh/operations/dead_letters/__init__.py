"""Dead letters from Python: find them, see what sending one again would do, do it, know what became of it.

    async with Mesh.connect() as mesh:
        dead = DeadLetters(mesh.log, mesh.topology)
        cases = await dead.select(Selection(agent="pricing", since_ms=yesterday_ms))
        plan = await dead.plan(cases)                       # nothing is sent; look at plan.sendings, plan.obstacles
        report = await dead.redrive(plan, by="ann")         # the ledger says who, when, what
        entries = await dead.wait(report, timeout_s=60)     # and then what became of each

A redrive is written down before anything is sent, so that one which was interrupted, at whatever point, goes on with
exactly the rest when it is planned and done again; and one that is done has nothing left to do.
"""

from mesh.core.dead_letters.letter import Letter, letter_from, letter_json
from mesh.core.dead_letters.redrive_log import LetterStatus, RedriveEntry
from mesh.core.dead_letters.redrive_plan import AlreadyDone, Obstacle, RedriveOptions, Sending
from mesh.operations.dead_letters.letters import Case, DeadLetters, RedrivePlan, RedriveReport, Selection, whoami

__all__ = [
    "AlreadyDone",
    "Case",
    "DeadLetters",
    "Letter",
    "LetterStatus",
    "Obstacle",
    "RedriveEntry",
    "RedriveOptions",
    "RedrivePlan",
    "RedriveReport",
    "Selection",
    "Sending",
    "letter_from",
    "letter_json",
    "whoami",
]
