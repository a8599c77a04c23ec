"""The modes of `mesh replay`: which options choose one, which go with it, and whether it takes a run."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from mesh.core.errors import InvalidInput

ONE: Final = "one run or recording"
ALL: Final = "all runs, or one"
ONLY_ALL: Final = "all runs"
_SPAN: Final = ("--since", "--until")


class Mode(NamedTuple):
    """A mode. `name`: the options that choose it; `takes`: further ones; `runs`: what it is for."""

    name: str
    runs: str
    takes: tuple[str, ...] = ()


PRINT: Final = Mode("RUN alone", ONE)
STEP: Final = Mode("--step or --break", ONE)
CHECK: Final = Mode("--check", ALL, _SPAN)
WHAT_IF: Final = Mode("--with or --limit", ALL, ("--limit", *_SPAN))
SANDBOX: Final = Mode("--run", ONE, ("--agent", "--set", "--from", "--repeat", "--ignore", "--timeout", "--save"))
AGENT: Final = Mode("--agent", ONLY_ALL, ("--agent", "--limit", "--jobs", "--ignore", "--save", *_SPAN))
RESEND: Final = Mode(
    "--resend",
    ALL,
    (
        *("--yes", "--rate", "--into", "--to-log", "--to-topology", "--keep-ids", "--again"),
        *("--type", "--key", "--where", "--limit", *_SPAN),
    ),
)
MODES: Final = (PRINT, STEP, CHECK, WHAT_IF, SANDBOX, AGENT, RESEND)


def choose(chosen: Mapping[Mode, object], given: Iterable[str], *, run: str | None, is_file: bool) -> Mode:
    """Return the mode that options choose. Raises InvalidInput for two modes, and for what does not go with the mode.

    `given`: options of modes. `is_file`: `run` is the name of a recording.
    """
    modes = [mode for mode, value in chosen.items() if value] or [PRINT]
    if len(modes) > 1:
        raise misused("these are two modes", " and ".join(mode.name for mode in modes), "Leave out one of them")
    mode = modes[0]
    if mode.runs == ONE and run is None:
        raise misused("no run is named", "RUN", "Name one; `mesh run list` shows the latest")
    if mode.runs == ONLY_ALL and run is not None and not is_file:
        raise misused("--agent alone is for all runs", "RUN", "Add --run to run this one again, or leave out RUN")
    options = list(given)
    if run is not None and not is_file and (spans := [one for one in options if one in _SPAN]):
        raise misused("one run has no time span", " or ".join(spans), "Leave out RUN, or the time span")
    if is_file and mode.runs == ONE and (spans := [one for one in options if one in _SPAN]):
        raise misused("this mode takes every run of the file", " or ".join(spans), "Leave out the time span")
    wrong = next((one for one in options if one not in mode.takes), None)
    if wrong is not None:
        raise misused(f"{wrong} goes with {_listed(wrong)}", wrong, "Add it, or leave this out")
    return mode


def _listed(option: str) -> str:
    names = [mode.name for mode in MODES if option in mode.takes and mode.name != option]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def misused(what: str, where: str, remedy: str) -> InvalidInput:
    """Return the error for options that do not go together."""
    return InvalidInput(what, code="usage", where=where, remedy=remedy)


def read_count(texts: Sequence[str], things: str, most: int = 10**12) -> int | None:
    """Read `--limit N` of a mode that counts; None: not given. Raises InvalidInput."""
    if not texts:
        return None
    if len(texts) > 1:
        raise misused(f"one number of {things} at a time", "--limit", "Give it once")
    if not texts[0].isdecimal() or not 0 < int(texts[0][:20]) <= most:
        raise InvalidInput(
            f"this is no number of {things}",
            code="bad_value",
            where="--limit",
            expected=f"1 to {most:,}",
            got=texts[0][:64],
        )
    return int(texts[0])
