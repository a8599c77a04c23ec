"""Faults injected on purpose with `mesh break`, for demos and game days. Pure.

A fault is a switch on mesh.control: every process applies it at once, commands show it, and it ends by itself. It
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
"""Targets besides agents; an agent with one of these names cannot be broken."""


class Broken(Exception):
    """Exception raised by a function that was broken with `error`."""

    __module__ = "mesh.core.chaos"  # the name in dead letters, which `final` may hold: it outlives moves


class InjectedFault(NamedTuple):
    """Effect of a fault: `error` raises `message`, `slow` adds `delay_ms`, `crash` ends the process, `hang` waits."""

    kind: str
    message: str = ""
    delay_ms: int = 0

    @property
    def text(self) -> str:
        """Form in a switch: `error no such table`, `slow 5000`, `crash`, `hang`."""
        return f"{self.kind} {self.message or self.delay_ms or ''}".rstrip()

    @property
    def words(self) -> str:
        """Description for people."""
        if self.kind == SLOW:
            return f"takes {self.delay_ms / 1000:g} s longer"
        return {ERROR: f"raises {self.message!r}", CRASH: "kills its process", HANG: "hangs"}[self.kind]


def parse_fault(text: str) -> InjectedFault | None:
    """Parse the text of a switch; None if it is invalid."""
    kind, _, rest = text.partition(" ")
    if kind == ERROR and rest:
        return InjectedFault(kind, rest)
    if kind == SLOW and rest.isdecimal() and rest.isascii() and len(rest) < 10:
        return InjectedFault(kind, delay_ms=int(rest))
    return InjectedFault(kind) if kind in (CRASH, HANG) and not rest else None


def active_fault(control: Control, name: str, at_ms: int) -> Switch | None:
    """Return the switch that breaks an agent (or `log`, `board`) at this time; None if it is not broken."""
    switch = control.switches.get(f"{FAULT}:{name}")
    return switch if switch is not None and at_ms < switch.until_ms and parse_fault(switch.how) is not None else None


def active_faults(control: Control, at_ms: int) -> list[Switch]:
    """Return the switches of all faults at this time, the earliest first."""
    known = [switch for switch in control.switches.values() if switch.what == FAULT]
    return [switch for switch in known if active_fault(control, switch.agent, at_ms) is not None]


def fault_switch(name: str, fault: InjectedFault, *, by: str, until_ms: int) -> Switch:
    """Return the switch that breaks a target until a time (ms since the epoch)."""
    return Switch(FAULT, name, BROKEN, by, "", how=fault.text, until_ms=until_ms)
