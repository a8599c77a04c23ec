"""Money and tokens: reserved before an attempt is dispatched, charged when the attempt ends.

An attempt whose usage is unknown (its report is invalid) is charged its whole reservation. An attempt that claims
more than it may spend is charged what it may spend: the budget of the run, less what was spent and what other
attempts have reserved. So no claim, forged or mistaken, takes the money of another task. Amounts are whole
millionths of a dollar and whole tokens, so sums are exact and a refusal depends only on the order of the log.
"""

from typing import Final

from mesh.core.protocol.event import NO_USAGE, Usage
from mesh.core.run.effects import Note
from mesh.core.run.lineage import Refusal, format_path
from mesh.core.run.state import Run
from mesh.core.topology.model import AgentSpec, Limits

AMOUNT_MAX: Final = 10**15
"""An amount larger than any usage may report."""


def refuse_spend(run: Run, spec: AgentSpec, path: tuple[str, ...], limits: Limits) -> Refusal | None:
    """Return why the run cannot afford one more attempt by `spec`, or None.

    Spent and reserved amounts plus the new reservation must stay within the budget. An agent that reserves nothing
    is refused once the budget is used up.
    """
    if limits.usd_micros_max is not None:
        spent = run.usd_micros + run.reserved_usd_micros
        if spent >= limits.usd_micros_max or spent + spec.reserve_usd_micros > limits.usd_micros_max:
            unit = "millionths of a dollar"
            return _refusal("budget_usd", spec, path, limits.usd_micros_max, spent, spec.reserve_usd_micros, unit)
    if limits.tokens_max is not None:
        spent = run.tokens + run.reserved_tokens
        if spent >= limits.tokens_max or spent + spec.reserve_tokens > limits.tokens_max:
            return _refusal("budget_tokens", spec, path, limits.tokens_max, spent, spec.reserve_tokens, "tokens")
    return None


def find_overspent(run: Run, limits: Limits) -> tuple[str, ...]:
    """Describe the budgets that the run exceeded. Usage that was claimed but not charged counts."""
    if limits.usd_micros_max is None and limits.tokens_max is None:
        return ()
    found = []
    beyond = run.beyond
    usd_micros, tokens = run.usd_micros + beyond.usd_micros, run.tokens + beyond.tokens
    if limits.usd_micros_max is not None and usd_micros > limits.usd_micros_max:
        found.append(f"usd: {_usd(usd_micros)} used, at most {_usd(limits.usd_micros_max)}")
    if limits.tokens_max is not None and tokens > limits.tokens_max:
        found.append(f"tokens: {tokens} used, at most {limits.tokens_max}")
    return tuple(found)


def _usd(micros: int) -> str:
    whole, rest = divmod(micros, 1_000_000)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")


def reserve(run: Run, spec: AgentSpec) -> None:
    """Set the reservation of one attempt aside."""
    run.reserved_usd_micros += spec.reserve_usd_micros
    run.reserved_tokens += spec.reserve_tokens


def charge(run: Run, spec: AgentSpec, usage: Usage | None, limits: Limits) -> Note | None:
    """Charge an attempt that was answered; returns a note if it claims more than it may spend."""
    if usage is NO_USAGE or usage is None:
        close_reservation(run, spec, usage)
        return None
    might = Usage(
        _may_spend(limits.usd_micros_max, run.usd_micros, run.reserved_usd_micros, spec.reserve_usd_micros),
        _may_spend(limits.tokens_max, run.tokens, run.reserved_tokens, spec.reserve_tokens),
    )
    charged = Usage(min(usage.usd_micros, might.usd_micros), min(usage.tokens, might.tokens))
    close_reservation(run, spec, charged)
    if charged == usage:
        return None
    more = usage.usd_micros - charged.usd_micros, usage.tokens - charged.tokens
    run.beyond = Usage(run.beyond.usd_micros + more[0], run.beyond.tokens + more[1])
    text = (
        f"{spec.name!r} claims {usage.usd_micros} millionths of a dollar and {usage.tokens} tokens;"
        f" it is charged {charged.usd_micros} and {charged.tokens}, all that it might spend"
    )
    return Note("overspent", text, run.id, security=True)


def _may_spend(limit: int | None, spent: int, reserved: int, own: int) -> int:
    """Return what an attempt may spend: at least its own reservation, since that was granted."""
    return AMOUNT_MAX if limit is None else max(own, limit - spent - (reserved - own))


def close_reservation(run: Run, spec: AgentSpec, usage: Usage | None) -> None:
    """Charge the usage of an attempt (None: its whole reservation) and release its reservation."""
    if usage is None:
        usage = Usage(spec.reserve_usd_micros, spec.reserve_tokens)
    run.usd_micros += usage.usd_micros
    run.tokens += usage.tokens
    run.reserved_usd_micros -= spec.reserve_usd_micros
    run.reserved_tokens -= spec.reserve_tokens


def _refusal(
    code: str, spec: AgentSpec, path: tuple[str, ...], limit: int, spent: int, reservation: int, unit: str
) -> Refusal:
    text = (
        f"{code}: {format_path(path, spec)} reserves {reservation} {unit} where {spent} are spent or reserved already,"
        f" at most {limit}"
    )
    return Refusal(code, spec.name, path, limit, spent + reservation, text)
