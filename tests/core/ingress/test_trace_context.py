"""The trace of a request: one row for each rule of the W3C."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.ingress.trace_context import NO_TRACE, STATE_CHARS_MAX, Trace, trace_of

ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{ID}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "onward"),
    [
        (PARENT, PARENT),
        (f"00-{ID}-{SPAN}-00", f"00-{ID}-{SPAN}-00"),
        (f" \t{PARENT} ", PARENT),
        # flags that are not known go on as zero; 02 says that the trace id is random
        (f"00-{ID}-{SPAN}-ff", f"00-{ID}-{SPAN}-03"),
        (f"00-{ID}-{SPAN}-04", f"00-{ID}-{SPAN}-00"),
        # of later versions, what they share with this one
        (f"cc-{ID}-{SPAN}-01", PARENT),
        (f"01-{ID}-{SPAN}-09-what-the-future-will-be-like", f"00-{ID}-{SPAN}-01"),
        (f"cc-{ID}-{SPAN}-01-", PARENT),
    ],
)
def test_a_traceparent_goes_on_as_version_00(text: str, onward: str) -> None:
    assert trace_of([text], []) == Trace(onward)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"ff-{ID}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID.upper()}-{SPAN}-01",
        f"0-{ID}-{SPAN}-01",
        f"00-{ID[:-1]}-{SPAN}-01",
        f"00-{ID}0-{SPAN}-01",
        f"00-{ID}-{SPAN}-1",
        f"00-{ID}-{SPAN}-0x",
        f"00-{ID}-{SPAN}-01-",
        f"00-{ID}-{SPAN}-01-more",
        f"cc-{ID}-{SPAN}-01.more",
        f"{PARENT},{PARENT}",
        f"{PARENT}\n",
        f"00_{ID}_{SPAN}_01",
        f"٠٠-{ID}-{SPAN}-01",
    ],
)
def test_what_is_no_traceparent_begins_no_trace_and_takes_its_tracestate_along(text: str) -> None:
    assert trace_of([text], ["a=b"]) == NO_TRACE


def test_of_several_traceparents_none_counts() -> None:
    assert trace_of([PARENT, PARENT], ["a=b"]) == NO_TRACE
    assert trace_of([], ["a=b"]) == NO_TRACE


@pytest.mark.parametrize(
    ("states", "onward"),
    [
        (["rojo=00f067aa0ba902b7"], "rojo=00f067aa0ba902b7"),
        (["a=1", "b=2,c=3"], "a=1,b=2,c=3"),
        (["a=1 , \tb=2 ,, ,c=3 "], "a=1,b=2,c=3"),
        (["", ""], ""),
        (["fw529a3039@dt=FfAA", "1tenant@v-*/_=x"], "fw529a3039@dt=FfAA,1tenant@v-*/_=x"),
        (["a= b c"], "a= b c"),
        (["a=!\"#$%&'()*+-./:;<>?@[\\]^_`{|}~"], "a=!\"#$%&'()*+-./:;<>?@[\\]^_`{|}~"),
        ([f"{'k' * 256}={'v' * 200}"], f"{'k' * 256}={'v' * 200}"),
        ([f"{'k' * 241}@{'v' * 14}=x"], f"{'k' * 241}@{'v' * 14}=x"),
        ([",".join(f"k{n}=v" for n in range(32))], ",".join(f"k{n}=v" for n in range(32))),
    ],
)
def test_lists_of_members_go_on_as_one(states: list[str], onward: str) -> None:
    assert trace_of([PARENT], states) == Trace(PARENT, onward)


@pytest.mark.parametrize(
    "state",
    [
        "a",
        "=1",
        "a=",
        "a=1=2",
        "A=1",
        "1a=1",
        "a b=1",
        "a=1,a=2",
        "a=\x01",
        "a=ä",
        "@v=1",
        "t@=1",
        "t@1v=1",
        "t@v@w=1",
        f"{'k' * 257}=x",
        f"{'k' * 242}@v=x",
        f"k@{'v' * 15}=x",
        f"a={'v' * 257}",
        ",".join(f"k{n}=v" for n in range(33)),
        ",".join(f"k{n}={'v' * 200}" for n in range(32)) * 4,
    ],
)
def test_a_tracestate_that_is_none_is_left_out_and_the_traceparent_goes_on(state: str) -> None:
    assert trace_of([PARENT], [state]) == Trace(PARENT)


def test_of_a_tracestate_that_is_too_long_long_members_go_first_and_then_the_last_ones() -> None:
    short, long = [f"s{n}={'v' * 90}" for n in range(6)], [f"l{n}={'v' * 150}" for n in range(3)]
    found = trace_of([PARENT], [",".join([long[0], *short[:2], long[1], *short[2:], long[2]])])
    assert found.tracestate.split(",") == short[:5]
    found = trace_of([PARENT], [",".join([long[0], long[1], short[0]])])
    assert found.tracestate.split(",") == [long[0], long[1], short[0]], "it fits"
    found = trace_of([PARENT], [",".join([*long, short[0]])])
    assert found.tracestate.split(",") == [*long[:2], short[0]]


@given(st.lists(st.text()), st.lists(st.text()))
def test_whatever_stands_there_is_a_trace_or_none(parents: list[str], states: list[str]) -> None:
    for found in (trace_of(parents, states), trace_of([PARENT], states)):
        assert len(found.tracestate) <= STATE_CHARS_MAX
        assert found.traceparent or not found.tracestate
        assert trace_of([found.traceparent], [found.tracestate]) == found
