"""Files with any common byte order mark are read."""

import pytest

from mesh.core.text_encoding import decode_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_file_in_this_encoding_is_read(encoding: str) -> None:
    assert decode_text("name: Müller\r\nnext\n".encode(encoding)) == "name: Müller\nnext\n"


def test_the_mark_determines_the_byte_order() -> None:
    assert decode_text("\ufeffö".encode("utf-16-be")) == decode_text("\ufeffö".encode("utf-32-be")) == "ö"


def test_other_encodings_are_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_text("Müller".encode("latin-1"))
