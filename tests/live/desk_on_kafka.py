"""The project of the command line's tests on the shared servers, with topics of its own."""

import shutil
import socket
import time
from pathlib import Path

from tests.cli.conftest import PROJECT, Cli


def desk_on_kafka(home: Path, bootstrap: str, redis_url: str, forker: socket.socket | None = None) -> Cli:
    """Return the command in a folder whose mesh has topics of its own on the broker; none of them is there yet."""
    mark = f"-{time.time_ns() % 10**8}"
    shutil.copytree(PROJECT, home / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    file = home / "desk" / "topics.yaml"
    text = file.read_text().replace("prefix: mesh", f"prefix: desk{mark}")
    for topic in ("hellos", "breaks", "rounds", "naps", "words", "greetings"):
        text = text.replace(f"  {topic}:", f"  {topic}{mark}:")
    file.write_text(text)
    cli = Cli(forker, home / "desk", home)
    cli.environ |= {"MESH_LOG": f"kafka://{bootstrap}", "MESH_BOARD": redis_url}
    return cli
