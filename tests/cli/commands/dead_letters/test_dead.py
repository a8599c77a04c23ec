"""`mesh dead`: list and show."""

from tests.cli.conftest import Cli


def test_a_dead_letter_is_listed_and_shown_with_why_where_and_what(desk: Cli) -> None:
    run = desk("publish", "break.me", '{"why": "dropped"}', "--wait", "--json").rows[0]["run"]
    (row,) = desk("dead", "list", "--run", run, "--agent", "breaker", "--json").rows
    assert (row["reason"], row["agent"], row["run"]) == ("exception", "breaker", run)
    assert (row["message"], row["attempts"], row["bytes"]) == ("dropped", 2, 18)
    done = desk("dead", "show", row["id"][:14])
    assert done.code == 0
    assert done.out.startswith("exception  dropped\n")
    assert "  origin    mesh.tasks.breaker:" in done.out
    assert "builtins.ValueError" in done.out
    assert "raise ValueError(order.why)" in done.out
    assert '    "why": "dropped"' in done.out
    assert done.err.splitlines() == [
        f"its run: mesh run show {run[:12]}",
        f"send it again: mesh dead redrive {row['id'][:12]} --yes",
    ]
    (shown,) = desk("dead", "show", row["id"], "--json").rows
    assert shown["value"] == '{"why": "dropped"}'
    assert ["ce_type", "break.me"] in shown["headers"]
    assert desk("dead", "show", shown["place"], "--json").rows == [shown]


def test_dead_letters_are_filtered_by_reason(desk: Cli) -> None:
    desk("publish", "round.go", "{}", "--wait")
    rows = desk("dead", "list", "--reason", "visits", "--since", "1h", "--limit", "1", "--json").rows
    assert [row["reason"] for row in rows] == ["visits"]
    assert desk("dead", "list", "--reason", "no_such").err.endswith("shows what there is\nNo dead letters.\n")


def test_an_unknown_dead_letter_is_exit_code_3(desk: Cli) -> None:
    done = desk("dead", "show", "nope")
    assert done.code == 3
    assert "no dead letter 'nope'. `mesh dead list` shows them" in done.err
