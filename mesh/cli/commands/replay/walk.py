"""A walk through the steps of a run: where it stands, and where each key leads."""

from collections.abc import Callable, Sequence
from typing import Final

from mesh.core.replay.steps import Step

KEYS: Final = (
    *(("→", "next"), ("←", "back"), ("g G", "ends"), ("r", "refusal"), ("a", "agent"), ("b", "break")),
    *((":", "step"), ("v", "data"), ("q", "quit")),
)
"""Keys as shown on the screen. `R`, `A` and `B` search backwards."""
_FORWARD: Final = frozenset({"right", "n", " ", "enter", "page down"})
_BACK: Final = frozenset({"left", "p", "backspace", "page up"})


class Walk:
    """The place in a run. `breaks`: whether a step is one at which to stop."""

    def __init__(self, steps: Sequence[Step], breaks: Callable[[Step], bool] | None, *, payload: bool = False) -> None:
        self.steps = steps
        self.payload = payload
        self._breaks = breaks
        self.stops = [n for n, step in enumerate(steps) if breaks is not None and breaks(step)]
        """Positions of the steps at which to stop."""
        self.position = self.stops[0] if self.stops else 0
        self.scroll = 0
        self.message = ""
        """What the last key could not do."""
        self.prompt: str | None = None
        """`agent` or `step` while a line is typed."""
        self.typed = ""
        self._agent = ""
        self._backwards = False

    @property
    def step(self) -> Step:
        """The step that is shown."""
        return self.steps[self.position]

    def press(self, key: str) -> bool:
        """Do what a key means. Returns False when the walk is over."""
        self.message = ""
        if self.prompt is not None:
            self._type(key)
            return True
        if key in ("q", "escape"):
            return False
        if key in ("up", "down"):
            self.scroll = max(0, self.scroll + (1 if key == "down" else -1))
        elif key == "v":
            self.payload = not self.payload
        elif key in ("a", "A", ":"):
            self.prompt, self.typed, self._backwards = ("step" if key == ":" else "agent"), "", key == "A"
        else:
            self._move(key)
        return True

    def _move(self, key: str) -> None:
        if key in _FORWARD:
            self._go(self.position + 1, "this is the last step")
        elif key in _BACK:
            self._go(self.position - 1, "this is the first step")
        elif key in ("g", "home"):
            self._go(0)
        elif key in ("G", "end"):
            self._go(len(self.steps) - 1)
        elif key in ("r", "R"):
            self._find(lambda step: step.is_refusal, "refusal", backwards=key == "R")
        elif key in ("b", "B"):
            self._to_break(backwards=key == "B")

    def _to_break(self, *, backwards: bool) -> None:
        if self._breaks is None:
            self.message = "no --break was given"
        else:
            self._find(self._breaks, "step that fits --break", backwards=backwards)

    def _type(self, key: str) -> None:
        """Take a key of the line that is typed."""
        if key == "escape":
            self.prompt = None
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif key != "enter":
            self.typed += key if len(key) == 1 else ""
        elif self.prompt == "step":
            self.prompt = None
            number = int(self.typed) if self.typed.isdecimal() else 0
            self._go(number - 1, f"there are steps 1 to {len(self.steps)}")
        else:
            self.prompt = None
            self._agent = self.typed or self._agent
            self._find(lambda step: self._concerns(step, self._agent), f"step of {self._agent!r}", self._backwards)

    @staticmethod
    def _concerns(step: Step, agent: str) -> bool:
        """Whether a step is an answer or a timer of an agent, or asks it."""
        return step.agent == agent or agent in step.fields()["asked"]

    def _go(self, position: int, otherwise: str = "") -> None:
        if 0 <= position < len(self.steps):
            self.scroll = 0 if position != self.position else self.scroll
            self.position = position
        else:
            self.message = otherwise

    def _find(self, wanted: Callable[[Step], bool], what: str, backwards: bool = False) -> None:
        places = range(self.position - 1, -1, -1) if backwards else range(self.position + 1, len(self.steps))
        found = next((n for n in places if wanted(self.steps[n])), None)
        if found is None:
            self.message = f"no {what} {'before' if backwards else 'after'} this one"
        else:
            self._go(found)
