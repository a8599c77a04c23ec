"""hop on Faust (faust-streaming): an agent on a raw topic, `await target.send`. Its default guarantee, at least once.

Raw serializers, so that pydantic does the only decoding; the web server off; one agent, since `concurrency` gives up
order and is not faster for work that does not wait.
"""

import sys
import tempfile
from typing import Any

import faust  # type: ignore[import-not-found,unused-ignore]

from bench.peers.work import Hop, hop, worked


def application(told: Hop, folder: str) -> Any:
    """A Faust application."""
    app = faust.App(
        told.group,
        broker=f"aiokafka://{told.bootstrap}",
        datadir=folder,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        broker_session_timeout=told.session_ms / 1000,
        broker_heartbeat_interval=told.session_ms / 6000,
        producer_acks=-1,
        broker_max_poll_records=500,
        stream_wait_empty=False,
    )
    source = app.topic(told.source, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)
    target = app.topic(told.target, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)

    async def answering(stream: Any) -> None:
        async for key, value in stream.items():
            await told.slowness.wait()
            await target.send(key=key, value=worked(value))

    app.agent(source)(answering)
    return app


if __name__ == "__main__":
    told = hop()
    with tempfile.TemporaryDirectory(prefix="peer-faust-") as folder:
        app = application(told, folder)
        sys.argv = ["faust", "worker", "--loglevel=warn", "--without-web"]
        app.main()
