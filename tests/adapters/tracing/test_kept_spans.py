from mesh.adapters.tracing.kept_spans import RUNS_BAD_MAX, Export, KeptSpans


class Exported(list[tuple[str, str]]):
    """Names of exported spans, and why."""

    def span(self, name: str) -> Export:
        return lambda why: self.append((name, why))


def test_spans_are_exported_when_their_run_ends_badly_and_so_are_later_ones() -> None:
    ring, exported = KeptSpans(10, 0), Exported()
    for run, name in (("a", "a1"), ("b", "b1"), ("a", "a2")):
        ring.add(run, exported.span(name))
    assert (len(ring), exported) == (3, [])
    ring.export("a", "failed")
    ring.add("a", exported.span("a3"))
    assert exported == [("a1", "failed"), ("a2", "failed"), ("a3", "failed")]
    assert len(ring) == 1


def test_the_oldest_run_goes_first() -> None:
    ring, exported = KeptSpans(3, 0), Exported()
    for run, name in (("a", "a1"), ("a", "a2"), ("b", "b1"), ("c", "c1")):
        ring.add(run, exported.span(name))
    assert len(ring) == 2
    for run in "abc":
        ring.export(run, "slow")
    assert exported == [("b1", "slow"), ("c1", "slow")]
    assert len(ring) == 0


def test_a_run_that_ended_well_is_forgotten() -> None:
    ring, exported = KeptSpans(3, 0), Exported()
    ring.add("a", exported.span("a1"))
    ring.forget("a")
    ring.forget("unknown")
    ring.export("a", "failed")
    assert (len(ring), exported) == (0, [])


def test_runs_that_ended_badly_are_forgotten_at_last() -> None:
    ring, exported = KeptSpans(3, 0), Exported()
    for n in range(RUNS_BAD_MAX + 1):
        ring.export(f"r{n}", "failed")
    ring.add("r0", exported.span("late"))
    ring.add("r1", exported.span("still known"))
    assert exported == [("still known", "failed")]


def test_slow_is_longer_than_the_limit() -> None:
    assert KeptSpans(1, 2).is_slow(0, 2_000_001)
    assert not KeptSpans(1, 2).is_slow(0, 2_000_000)
    assert not KeptSpans(1, 0).is_slow(0, 10**18)
