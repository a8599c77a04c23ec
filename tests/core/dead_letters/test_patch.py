"""Fields of a payload are set, and nothing else changes."""

import pytest

from mesh.core.dead_letters.patch import added_fields, apply_patches, parse_patch
from mesh.core.errors import InvalidInput
from mesh.core.protocol.event import BATCH, JSON, Part, decode_batch, encode_batch


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("total=12", b'{"a":1}', b'{"a":1,"total":12}'),
        ("a=1.5", b'{"a":1,"b":2}', b'{"a":1.5,"b":2}'),
        ("order.lines[0].sku=x-1", b'{"order":{"lines":[{"sku":"y","n":1}]}}', None),
        ("lines[1]=null", b'{"lines":[1]}', b'{"lines":[1,null]}'),
        ("a.b.c=true", b"{}", b'{"a":{"b":{"c":true}}}'),
        ("a.b=1", b'{"a":null}', b'{"a":{"b":1}}'),
        ('note="a=b"', b"{}", b'{"note":"a=b"}'),
        ("note=a=b", b"{}", b'{"note":"a=b"}'),
        ('"odd=name".x=[1,2]', b"{}", b'{"odd=name":{"x":[1,2]}}'),
        ("a=", b"{}", b'{"a":""}'),
    ],
)
def test_a_field_is_set(text: str, before: bytes, after: bytes | None) -> None:
    wanted = after or b'{"order":{"lines":[{"sku":"x-1","n":1}]}}'
    assert apply_patches(before, JSON, [parse_patch(text)]) == wanted


def test_changes_are_made_in_order_and_none_keeps_the_bytes() -> None:
    changes = [parse_patch("a={}"), parse_patch("a.b=1")]
    assert apply_patches(b'{ "a" : 7 }', JSON, changes) == b'{"a":{"b":1}}'
    assert apply_patches(b'{ "a" : 7 }', JSON, []) == b'{ "a" : 7 }'
    assert str(changes[1]) == "a.b=1"


def test_in_the_input_of_a_join_the_path_begins_with_a_type() -> None:
    data = encode_batch([Part("stock.ok", b'{"n":1}'), Part("price", b'{"n":2}')], source="/s", event_id="e")
    found = decode_batch(apply_patches(data, BATCH, [parse_patch("stock.ok.n=5")]))
    assert [(part.type, part.data) for part in found] == [("stock.ok", b'{"n":5}'), ("price", b'{"n":2}')]
    with pytest.raises(InvalidInput, match=r"begin with a type: stock\.ok, price"):
        apply_patches(data, BATCH, [parse_patch("n=5")])


@pytest.mark.parametrize("text", ["total", "=1", "a b=1", "[0]=1"])
def test_what_is_no_change_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(InvalidInput, match="path=value") as raised:
        parse_patch(text)
    assert (raised.value.code, raised.value.exit_code) == ("bad_value", 2)


@pytest.mark.parametrize(
    ("data", "text", "code"),
    [
        (b"not json", "a=1", "unparseable"),
        (b'{"a":[1]}', "a.b=1", "bad_value"),
        (b'{"a":[1]}', "a[2]=1", "bad_value"),
        (b'{"a":"x"}', "a[0]=1", "bad_value"),
        (b'{"n":123456789012345678901234567890}', "a=1", "bad_number"),
        (b"{}", "a=\udcff", "bad_value"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(data: bytes, text: str, code: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        apply_patches(data, JSON, [parse_patch(text)])
    assert raised.value.code == code


def test_fields_that_a_patch_adds_are_named() -> None:
    changes = [parse_patch(text) for text in ("a.b=2", "a.c=1", "a.c=2", "n=null", "d[1]=3")]
    assert added_fields(b'{"a":{"b":1},"n":null,"d":[1]}', JSON, changes) == ["a.c", "d[1]"]
    data = encode_batch([Part("stock.ok", b'{"n":1}')], source="/s", event_id="e")
    changes = [parse_patch(text) for text in ("stock.ok.n=5", "stock.ok.m=5")]
    assert added_fields(data, BATCH, changes) == ["stock.ok.m"]


@pytest.mark.parametrize(
    ("data", "text", "there"),
    [
        (b"{}", "ids[3].x=1", "null"),
        (b'{"ids":{}}', "ids[0]=1", "an object"),
        (b'{"ids":true}', "ids.x=1", "true or false"),
        (b'{"ids":1.5}', "ids.x=1", "a number"),
        (b'{"ids":[]}', "ids.x=1", "an array"),
    ],
)
def test_a_value_that_is_in_the_way_is_named_as_in_json(data: bytes, text: str, there: str) -> None:
    with pytest.raises(InvalidInput, match=rf"(there is|a field of) {there}"):
        apply_patches(data, JSON, [parse_patch(text)])
