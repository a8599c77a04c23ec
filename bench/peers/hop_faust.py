"""hop on Faust (faust-streaming): an agent on a raw topic, `await target.send`. Its default guarantee, at least once.

Raw serializers, so that pydantic does the only decoding; the web server off; one agent, since `concurrency` gives up
order and is not faster for work that does not wait.
"""

import sys
import tempfile
from typing import Any

import faust  # type: ignore[import-not-found,unused-ignore]

from bench.peers.work import Hop, hop, worked


def application(options: Hop, folder: str) -> Any:
    """A Faust application."""
    app = faust.App(
        options.group,
        broker=f"aiokafka://{options.bootstrap}",
        datadir=folder,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        broker_session_timeout=options.session_ms / 1000,
        broker_heartbeat_interval=options.session_ms / 6000,
        producer_acks=-1,
        broker_max_poll_records=500,
        stream_wait_empty=False,
    )
    source = app.topic(options.source, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)
    target = app.topic(options.target, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)

    async def answering(stream: Any) -> None:
        async for key, value in stream.items():
            await options.slowness.wait()
            await target.send(key=key, value=worked(value))

    app.agent(source)(answering)
    return app


if __name__ == "__main__":
    options = hop()
    with tempfile.TemporaryDirectory(prefix="peer-faust-") as folder:
        app = application(options, folder)
        sys.argv = ["faust", "worker", "--loglevel=warn", "--without-web"]
        app.main()
