"""Delays between attempts: exponential with a hard cap. Jitter is a hash of ids, so a replay waits equally long."""

from hashlib import blake2b

from mesh.core.topology.model import Retry


def delay_ms(retry: Retry, attempt: int, *, seed: str) -> int:
    """Return the milliseconds to wait after failed attempt number `attempt` (from 1).

    The delay is `first · factor^(attempt-1)`, at most `delay_ms_max`. Jitter shortens it by up to the fraction
    `jitter`, derived from `seed` (a task id).
    """
    try:
        raw = min(float(retry.delay_ms_max), retry.first_ms * float(retry.factor) ** (attempt - 1))
    except OverflowError:  # beyond any cap
        raw = float(retry.delay_ms_max)
    digest = blake2b(f"{seed}:{attempt}".encode(), digest_size=4).digest()
    share = int.from_bytes(digest, "big") / 2**32
    return max(0, round(raw * (1 - retry.jitter * share)))
