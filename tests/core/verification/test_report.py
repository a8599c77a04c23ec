"""Violations are shown in one line, all are counted, the first of each kind are kept."""

from mesh.core.verification.report import VIOLATIONS_KEPT, VerificationReport, Violation


def test_a_violation_reads_as_a_line() -> None:
    assert str(Violation("I2", "mesh.outcomes:0:7", "it ended twice")) == "I2 mesh.outcomes:0:7: it ended twice"
    full = Violation("I7", "mesh.inbox:0", "it went back", "at least 6", "5")
    assert str(full) == "I7 mesh.inbox:0: it went back; expected at least 6; got 5"


def test_a_report_counts_all_and_keeps_the_first_of_each_invariant() -> None:
    report = VerificationReport()
    assert report.good
    for n in range(3 * VIOLATIONS_KEPT):
        report.add(Violation("I6", f"mesh.inbox:0:{n}", "it differs"))
    report.add(Violation("I2", "mesh.outcomes:0:1", "it ended twice"))
    assert not report.good
    assert report.found == {"I6": 3 * VIOLATIONS_KEPT, "I2": 1}
    assert len(report.violations) == VIOLATIONS_KEPT + 1
    assert report.violations[-1].invariant == "I2"
