"""An agent that is broken on purpose: the alert, the automatic stop, who says so, and the resumption that ends it."""

from typing import Any

import pytest

from tests.cli.conftest import Cli, until

WINDOWS_S = 120
"""An alert looks at whole windows of 10 s, and a busy machine is slow."""
ALERTS = """
alerts:
  failing: {when: error_rate > 50% for 10s, of: greeter, min: 6, then: stop}
"""


def top(cli: Cli) -> dict[str, Any]:
    (row,) = cli("top", "--json").rows
    return dict(row)


@pytest.fixture
def watched(project: Cli) -> Cli:
    """A project whose monitor stops the greeter when it fails."""
    file = project.folder / "topics.yaml"
    text = file.read_text().replace("  prefix: mesh\n", "  prefix: mesh\n  chaos: true\n")
    assert "chaos: true" in text
    file.write_text(text + ALERTS)
    return project


def test_a_broken_agent_is_stopped_explained_and_resumed(watched: Cli) -> None:
    with watched.up() as running:
        assert "monitor" in running.ready["services"]
        assert watched("break", "greeter", "--error", "no tea", "--for", "10m").code == 0
        for number in range(6):
            assert watched("publish", "hello", f'{{"name":"guest-{number}"}}').code == 0
        until(lambda: top(watched)["stops"], deadline_s=WINDOWS_S)
        state = top(watched)
        (alert,) = state["alerts"]
        assert (alert["alert"], alert["scope"], alert["stops"]) == ("failing", "agent:greeter", True)
        (stop,) = state["stops"]
        assert (stop["agent"], stop["by"]) == ("greeter", "monitor")
        assert stop["why"] == f"alert failing: {alert['why']}"
        greeter = state["agents"][0]
        assert (greeter["alerts"], greeter["broken"]["how"]) == (["failing"], "error no tea")
        told = watched("top", "--once").out
        assert "alert failing  agent greeter" in told
        assert "agent greeter stopped" in told
        assert "by monitor: alert failing" in told
        assert "mesh resume agent greeter" in told
        assert "by monitor" in watched("agents").out

        assert watched("unbreak", "greeter").code == 0
        assert watched("resume", "agent", "greeter").code == 0
        until(lambda: not top(watched)["alerts"], deadline_s=WINDOWS_S)
        assert top(watched)["stops"] == []
        assert watched("publish", "hello", '{"name":"after"}', "--wait").code == 0
