"""Dead letters from Python: find them, plan a redrive, do it, and wait for its result.

    async with Mesh.connect() as mesh:
        dead = DeadLetters(mesh.log, mesh.topology)
        cases = await dead.select(Selection(agent="pricing", since_ms=yesterday_ms))
        plan = await dead.plan(cases)                       # nothing is sent; look at plan.sendings, plan.obstacles
        report = await dead.redrive(plan, by="ann")         # the ledger notes author, time and content
        entries = await dead.wait(report, timeout_s=60)     # the result of each

A redrive is written to the ledger before anything is sent. An interrupted redrive, planned and done again, continues
with exactly the rest; one that is complete does nothing.
"""

from mesh.core.dead_letters.letter import Letter, letter_from, letter_json
from mesh.core.dead_letters.redrive_log import LetterStatus, RedriveEntry
from mesh.core.dead_letters.redrive_plan import AlreadyDone, Obstacle, RedriveOptions, Sending
from mesh.operations.dead_letters.letters import Case, DeadLetters, RedrivePlan, RedriveReport, Selection
from mesh.operations.dead_letters.sending import whoami

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
