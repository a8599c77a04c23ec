"""Sides are measured in turn, ratios are taken round by round, and the table says what was found."""

import pytest

from bench.peers.compare import Measured, NotMeasured, Ratio, Sample, alternate, figures, ratio, table


async def test_sides_are_measured_in_turn() -> None:
    order: list[str] = []

    async def measure(name: str) -> Sample:
        order.append(name)
        return Sample(float(len(order)), 1.0)

    measured = await alternate({"a": lambda: measure("a"), "b": lambda: measure("b")}, 3)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert [s.per_s for s in measured.samples["b"]] == [2.0, 4.0, 6.0]
    assert measured.failed == {}


async def test_a_side_that_fails_is_left_out_with_its_reason_and_the_others_go_on() -> None:
    calls: list[str] = []

    async def good() -> Sample:
        calls.append("good")
        return Sample(1.0, 1.0)

    async def bad() -> Sample:
        calls.append("bad")
        raise NotMeasured("it has no module named peer")

    measured = await alternate({"good": good, "bad": bad}, 2)
    assert calls == ["good", "bad", "good"]
    assert list(measured.samples) == ["good"]
    assert measured.failed == {"bad": "it has no module named peer"}


async def test_any_other_error_ends_the_comparison() -> None:
    async def broken() -> Sample:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await alternate({"broken": broken}, 1)


def test_a_ratio_is_taken_within_its_round() -> None:
    # The machine was ten times slower in the second round: for both.
    assert ratio([100.0, 10.0, 120.0], [50.0, 5.0, 40.0]) == (2.0, 2.0, 3.0)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_do_not_match_have_no_ratio(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - zip's own, or ours
        ratio(ours, theirs)


def test_figures_hold_medians_raw_samples_ratios_and_what_the_kill_did() -> None:
    measured = Measured(
        {
            "ours": [Sample(300.0, 5.0), Sample(100.0, 7.0), Sample(200.0, 6.0)],
            "theirs": [Sample(100.0, 10.0), Sample(50.0, 30.0), Sample(50.0, 20.0)],
        },
        {"third": "it ended"},
    )
    verdict = {"messages": 300, "kills": 2, "lost": 18, "doubled": 3, "safe": False}
    found = figures(measured, ["ours"], {"theirs": verdict})
    assert found["ours"] == {
        "per_s": 200,
        "per_s_all": [300, 100, 200],
        "cpu_us": 6.0,
        "cpu_us_all": [5.0, 7.0, 6.0],
    }
    assert found["theirs"]["ours_is"] == [(3.0, 2.0, 4.0)]
    assert found["theirs"]["kill_9"] == verdict
    assert found["third"] == {"failed": "it ended"}


def test_without_our_side_there_are_figures_and_no_ratios() -> None:
    found = figures(Measured({"theirs": [Sample(10.0, 1.0)]}, {}), ["ours"], {})
    assert "ours_is" not in found["theirs"]


def test_a_side_that_was_only_killed_is_in_the_figures() -> None:
    verdict = {"messages": 60, "kills": 2, "lost": 0, "doubled": 1, "safe": True}
    found = figures(Measured({}, {}), ["ours"], {"theirs": verdict})
    assert found == {"theirs": {"kill_9": verdict}}
    assert "safe: 0 of 60 lost, 1 twice" in table(found)


def test_the_table_says_how_many_times_and_what_was_lost() -> None:
    lines = table(
        {
            "ours": {"per_s": 60_000, "cpu_us": 9.5},
            "theirs": {
                "per_s": 4_000,
                "cpu_us": 250.0,
                "ours_is": [Ratio(15.0, 14.0, 16.25)],
                "kill_9": {"messages": 300, "kills": 2, "lost": 18, "doubled": 3, "safe": False},
            },
            "third": {"failed": "no module\nand a stack"},
            "fourth": {"per_s": 1, "cpu_us": 1.0, "kill_9": {"failed": "it did not end"}},
        }
    ).splitlines()
    assert len(lines) == 5
    assert "60,000" in lines[1]
    assert "not tested" in lines[1]
    assert "15.00 x (14.00-16.25)" in lines[2]
    assert lines[2].endswith("UNSAFE: 18 of 300 lost, 3 twice")
    assert lines[3].endswith("not measured: no module")
    assert lines[4].endswith("not tested: it did not end")
