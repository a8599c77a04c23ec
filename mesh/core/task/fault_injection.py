"""Faults that people put into a mesh on purpose, for demos and game days: what `mesh break` says and workers do. Pure.

A fault is a switch on mesh.control, so it is known everywhere at once, to be seen by everybody, and ends by itself. It
counts only where topics.yaml allows it (`mesh: {chaos: true}`).
"""

from typing import Final, NamedTuple

from mesh.core.run.control import BROKEN, FAULT, Control, Switch

ERROR: Final = "error"
SLOW: Final = "slow"
CRASH: Final = "crash"
HANG: Final = "hang"
LOG: Final = "log"
BOARD: Final = "board"
STORES: Final = (LOG, BOARD)
"""What can be broken beside agents; an agent of this name cannot."""


class Broken(Exception):
    """What a function raises that was broken with `error`."""

    __module__ = "mesh.core.chaos"  # the name in dead letters, which `final` may hold: it outlives moves


class InjectedFault(NamedTuple):
    """What a fault does: `error` raises `message`, `slow` adds `delay_ms`, `crash` ends its process, `hang` waits."""

    kind: str
    message: str = ""
    delay_ms: int = 0

    @property
    def text(self) -> str:
        """As it stands in a switch: `error no such table`, `slow 5000`, `crash`, `hang`."""
        return f"{self.kind} {self.message or self.delay_ms or ''}".rstrip()

    @property
    def words(self) -> str:
        """For people."""
        if self.kind == SLOW:
            return f"takes {self.delay_ms / 1000:g} s longer"
        return {ERROR: f"raises {self.message!r}", CRASH: "kills its process", HANG: "hangs"}[self.kind]


def parse_fault(text: str) -> InjectedFault | None:
    """What the text of a switch says; None if that is nothing known."""
    kind, _, rest = text.partition(" ")
    if kind == ERROR and rest:
        return InjectedFault(kind, rest)
    if kind == SLOW and rest.isdecimal() and rest.isascii() and len(rest) < 10:
        return InjectedFault(kind, delay_ms=int(rest))
    return InjectedFault(kind) if kind in (CRASH, HANG) and not rest else None


def active_fault(control: Control, name: str, at_ms: int) -> Switch | None:
    """The fault that an agent (or `log`, `board`) has at this time, if it has one."""
    switch = control.switches.get(f"{FAULT}:{name}")
    return switch if switch is not None and at_ms < switch.until_ms and parse_fault(switch.how) is not None else None


def active_faults(control: Control, at_ms: int) -> list[Switch]:
    """All faults that stand at this time, the earliest first."""
    known = [switch for switch in control.switches.values() if switch.what == FAULT]
    return [switch for switch in known if active_fault(control, switch.agent, at_ms) is not None]


def fault_switch(name: str, fault: InjectedFault, *, by: str, until_ms: int) -> Switch:
    """The switch that breaks something until a time (ms since the epoch)."""
    return Switch(FAULT, name, BROKEN, by, "", how=fault.text, until_ms=until_ms)
