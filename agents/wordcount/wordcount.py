"""A Faust app that was there before the mesh: it counts words in a table. Its last line lets it work for a mesh."""

import os
from collections.abc import AsyncIterator

import faust

from mesh.faust import join

app = faust.App(
    "wordcount",
    broker=os.environ.get("KAFKA", "kafka://127.0.0.1:9092"),
    store="memory://",
    topic_partitions=6,
    topic_disable_leader=True,
    broker_session_timeout=10.0,
    broker_heartbeat_interval=3.0,
)


class Seen(faust.Record, validation=True):
    """A word that came."""

    id: str
    word: str


class Counted(faust.Record):
    """How often a word has come by now."""

    id: str
    word: str
    count: int


words = app.Table("words", default=int, partitions=6)
"""How often each word came. Faust keeps it in a changelog topic. A word always comes in the same partition: producers
of the app's own topic take it as key, and topics.yaml says `key: word`."""


@app.agent(app.topic("wordcount-seen", value_type=Seen))
async def count(seen: faust.StreamT[Seen]) -> AsyncIterator[Counted]:
    """Count words: those of the app's own topic as before, and those of the mesh."""
    async for one in seen:
        words[one.word] += 1
        yield Counted(id=one.id, word=one.word, count=words[one.word])


join(app, topics=os.path.join(os.path.dirname(__file__), "topics.yaml"))

if __name__ == "__main__":
    app.main()
