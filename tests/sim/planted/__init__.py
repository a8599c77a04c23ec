"""Bugs on purpose, each a patch of the real code that holds only while a simulation runs: tests of the tests.

`first` is a seed at or before the first one that finds the bug, and `words` are in what is then said of it.
"""

from tests.sim.planted import (
    attempt_dropped,
    breaker_a_partition,
    checkpoint_ahead,
    clock_set_back,
    commit_before_publish,
    double_settle,
    early_timer,
    forgiven_by_count,
    highest_seen,
    home_ignored,
    instance_ids,
    larger_outcome,
    late_result,
    local_expiry,
    lost_join_input,
    lost_rows,
    names_not_counted,
    order_lost,
    overspent_completed,
    path_dropped,
    repeated_input_unsaid,
    set_order,
    starved_though_unwanted,
    stops_the_living,
    swallowed_refusal,
    trimmed_too_early,
    unawaited_append,
    unbounded_retry,
    uncounted_cut,
    unrouted_completed,
    unsaid_topology,
    unwanted_join_unsaid,
    wall_clock,
    zombie_checkpoint,
)
from tests.sim.planted.patching import Planted

_BUGS = (
    (commit_before_publish, "before", 0),
    (highest_seen, "unanswered", 0),
    (unawaited_append, "before", 0),
    (swallowed_refusal, "lacks", 0),
    (set_order, "is not what follows", 0),
    (wall_clock, "is not what follows", 0),
    (unbounded_retry, "time, at most", 0),
    (instance_ids, "follows from nothing", 0),
    (checkpoint_ahead, "before", 0),
    (zombie_checkpoint, "NotRestorable", 744),
    (late_result, "follows from attempt", 0),
    (lost_join_input, "lacks", 120),
    (lost_rows, "is not what follows", 150),
    (early_timer, "too early", 0),
    (local_expiry, "before its run's deadline", 0),
    (names_not_counted, "not at rest", 40),
    (larger_outcome, "not at rest", 0),
    (uncounted_cut, "otherwise than", 40),
    (trimmed_too_early, "NotRestorable", 1490),
    (double_settle, "charged", 0),
    (order_lost, "order of", 1_962),
    (home_ignored, "misrouted", 0),
    (breaker_a_partition, "before its breaker may close", 1_000),
    (forgiven_by_count, "no redrive took back", 0),
    (stops_the_living, "as if it had ended", 0),
    (unrouted_completed, "not named as unrouted", 0),
    (starved_though_unwanted, "named as starved", 0),
    (unsaid_topology, "lacks", 0),
    (overspent_completed, "wrong about the budget", 250),
    (repeated_input_unsaid, "a join did not take", 40),
    (clock_set_back, "not at rest", 40),
    (unwanted_join_unsaid, "what joins lost", 20),
    (attempt_dropped, "claims to be attempt", 0),
    (path_dropped, "depth or path", 0),
)
PLANTED = {
    name: Planted(name, (module.__doc__ or "").strip(), words, first, module.patch)
    for module, words, first in _BUGS
    for name in [module.__name__.rpartition(".")[2]]
}
