"""The modes of `mesh replay`: one is chosen, and what does not go with it is an error that names what it goes with."""

from typing import Any

import pytest

from mesh.cli.commands.replay import modes
from mesh.cli.commands.replay.resend_options import SendOptions
from mesh.cli.commands.replay.sandbox_options import CallOptions
from mesh.cli.framework.options import given_options
from mesh.core.errors import InvalidInput


def choose(
    *chosen: modes.Mode, given: tuple[str, ...] = (), run: str | None = "r", is_file: bool = False
) -> modes.Mode:
    return modes.choose(dict.fromkeys(chosen, True), given, run=run, is_file=is_file)


def test_a_mode_is_chosen_by_its_options_and_printing_by_none() -> None:
    assert choose() is modes.PRINT
    assert choose(modes.STEP) is modes.STEP
    assert choose(modes.AGENT, given=("--agent", "--jobs", "--since"), run=None) is modes.AGENT
    assert choose(modes.AGENT, run="a.jsonl", is_file=True) is modes.AGENT
    assert choose(modes.CHECK, given=("--since",), run="a.jsonl", is_file=True) is modes.CHECK


@pytest.mark.parametrize(
    ("chosen", "more", "said"),
    [
        ((modes.CHECK, modes.STEP), {}, "these are two modes"),
        ((), {"run": None}, "no run is named"),
        ((modes.SANDBOX,), {"run": None}, "no run is named"),
        ((modes.AGENT,), {}, "--agent alone is for all runs"),
        ((modes.CHECK,), {"given": ("--until",)}, "one run has no time span"),
        ((modes.STEP,), {"given": ("--save",)}, "--save goes with --run or --agent"),
        ((modes.STEP,), {"given": ("--limit",)}, "--limit goes with --with or --limit, --agent or --resend"),
        ((), {"given": ("--ignore",)}, "--ignore goes with --run or --agent"),
        (
            (modes.STEP,),
            {"given": ("--since",), "is_file": True},
            "this mode takes every run of the file",
        ),
    ],
)
def test_what_does_not_go_together_is_an_error(chosen: tuple[modes.Mode, ...], more: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        choose(*chosen, **more)
    assert said in str(raised.value)


def test_every_option_of_a_group_goes_with_a_mode() -> None:
    """A new option that no mode takes could never be given."""
    calls = CallOptions(True, ["a=1"], "t", ["a"], 2, ["a"], "1s", 2, "f")
    send = SendOptions(True, True, "1", "t", "u", "f", True, True, "t", "k", "w")
    options = [*given_options(calls), *given_options(send)]
    assert len(options) == len(CallOptions._fields) + len(SendOptions._fields)
    taken = {option for mode in modes.MODES for option in (mode.name, *mode.takes)}
    assert set(options) <= taken
    assert given_options(CallOptions()) == given_options(SendOptions()) == []
