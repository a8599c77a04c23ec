"""hop on FastStream. Three variants, since its speed and its safety are a choice:

`default`   the first example of its documentation: one message at a time, committed by a timer in any case.
`workers`   `max_workers=64`, which only that commit by timer allows to be unordered: its fastest setting.
`safe`      `AckPolicy.NACK_ON_ERROR`, `max_workers=6`: committed after the handler; at most one worker a partition
"""

import asyncio
from typing import Any

from faststream import AckPolicy, FastStream  # type: ignore[import-not-found,unused-ignore]
from faststream.kafka import KafkaBroker, KafkaMessage, KafkaResponse  # type: ignore[import-not-found,unused-ignore]

from bench.peers.work import Hop, hop, worked

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "workers": {"max_workers": 64},
    "safe": {"max_workers": 6, "ack_policy": AckPolicy.NACK_ON_ERROR},
}


def application(options: Hop) -> Any:
    """A FastStream application. The body is taken raw, since its own decoding would be done twice."""
    broker = KafkaBroker(options.bootstrap, logger=None, acks="all")

    async def raw(message: Any) -> bytes:
        body: bytes = message.body
        return body

    async def handle(body: bytes, message: KafkaMessage) -> Any:
        await options.slowness.wait()
        return KafkaResponse(worked(body), key=message.raw_message.key)

    subscriber = broker.subscriber(
        options.source,
        group_id=options.group,
        auto_offset_reset="earliest",
        session_timeout_ms=options.session_ms,
        heartbeat_interval_ms=options.session_ms // 6,
        decoder=raw,
        **OPTIONS[options.variant],
    )
    subscriber(broker.publisher(options.target)(handle))
    return FastStream(broker, logger=None)


if __name__ == "__main__":
    asyncio.run(application(hop()).run())
