"""An open loop measures the mesh, and not the garbage collector of the process that measures."""

import gc

import pytest

from bench.field import Setup
from bench.load import Outcomes, Payload, open_loop, rare_collections
from bench.workloads.run1 import TEXT


class Seen(Exception):
    """The state of the collector while requests are made."""


async def test_the_collector_of_the_client_is_as_rare_as_that_of_services_during_an_open_loop() -> None:
    before = gc.get_threshold()

    def payload(n: int) -> Payload:
        raise Seen(gc.get_threshold())

    async with Setup().field(TEXT) as field:
        outcomes = Outcomes(field.log, field.topology.outcomes)
        with pytest.raises(ExceptionGroup) as caught:
            await open_loop(field.mesh, outcomes, rate=100, seconds=1, payload=payload)
    (error,) = caught.value.exceptions
    (during,) = error.args
    assert all(rare > usual for rare, usual in zip(during, before, strict=True))
    assert gc.get_threshold() == before


def test_the_objects_of_before_are_collected_again_afterwards() -> None:
    frozen = gc.get_freeze_count()
    with rare_collections():
        assert gc.get_freeze_count() > frozen
    assert gc.get_freeze_count() == 0
