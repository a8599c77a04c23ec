"""Money and tokens: reserved before a task is dispatched, settled when it ended.

A task whose use is unknown (its report is no usage) is charged its whole reservation. Amounts are whole millionths
of a dollar and whole tokens, so sums are exact and a refusal depends only on the order of the log.
"""

from typing import TYPE_CHECKING

from mesh.core.event import Usage
from mesh.core.lineage import Refusal
from mesh.core.topology import AgentSpec, Limits

if TYPE_CHECKING:
    from mesh.core.run import Run


def refuse_spend(run: "Run", spec: AgentSpec, path: tuple[str, ...], limits: Limits) -> Refusal | None:
    """Why the run cannot afford one more task of `spec`, or None.

    What was spent and reserved plus the new reservation must stay within the budget; an agent that reserves nothing
    is refused once the budget is used up.
    """
    if limits.usd_micros_max is not None:
        spent = run.usd_micros + run.reserved_usd_micros
        want = spent + spec.reserve_usd_micros
        if want > limits.usd_micros_max or spent >= limits.usd_micros_max:
            return _refusal("budget_usd", spec, path, limits.usd_micros_max, want, "millionths of a dollar")
    if limits.tokens_max is not None:
        spent = run.tokens + run.reserved_tokens
        want = spent + spec.reserve_tokens
        if want > limits.tokens_max or spent >= limits.tokens_max:
            return _refusal("budget_tokens", spec, path, limits.tokens_max, want, "tokens")
    return None


def reserve(run: "Run", spec: AgentSpec) -> None:
    """Set the reservation of one task aside."""
    run.reserved_usd_micros += spec.reserve_usd_micros
    run.reserved_tokens += spec.reserve_tokens


def settle(run: "Run", spec: AgentSpec, usage: Usage | None, *, ended: bool) -> None:
    """Charge what an attempt used; release the reservation when the task ended."""
    if usage is None:
        usage = Usage(spec.reserve_usd_micros, spec.reserve_tokens)
    run.usd_micros += usage.usd_micros
    run.tokens += usage.tokens
    if ended:
        run.reserved_usd_micros -= spec.reserve_usd_micros
        run.reserved_tokens -= spec.reserve_tokens


def _refusal(code: str, spec: AgentSpec, path: tuple[str, ...], limit: int, actual: int, unit: str) -> Refusal:
    way = " > ".join((*path, spec.name))
    text = f"{code}: {way} would bring the run to {actual} {unit} spent or reserved, at most {limit}"
    return Refusal(code, spec.name, path, limit, actual, text)
