"""Keys from the bytes that a terminal sends."""

import pytest

from mesh.cli.framework.keys import decode


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"n", ["n"]),
        (b"\x1b[C\x1b[D", ["right", "left"]),
        (b"\x1bOA\x1b[B", ["up", "down"]),
        (b"\x1b[1~\x1b[F\x1b[5~", ["home", "end", "page up"]),
        (b"a\rb\n\x7f", ["a", "enter", "b", "enter", "backspace"]),
        (b"\x1b", ["escape"]),
        (b"\x1bq", ["escape", "q"]),
        ("é…".encode(), ["é", "…"]),
        (b"\x1b[1;5Cx", ["x"]),
        (b"\x1b[200~y", ["y"]),
        (b"\x1b[", []),
        (b"\x00\x01z", ["z"]),
        (b"\xff\xfe", ["\ufffd", "\ufffd"]),
        (b"\x03\x04", ["interrupt", "end of input"]),
        (b"", []),
    ],
)
def test_keys(sent: bytes, keys: list[str]) -> None:
    assert decode(sent) == keys
