"""Service keys by their hashes; history cursors."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_pool.keys import ApiKeys
from api_pool.routes.history import decode_cursor, encode_cursor
from mt5kit.errors import InvalidParameters, Unauthenticated


def digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def test_several_keys_are_known_by_name() -> None:
    keys = ApiKeys("X-API-Key", {"edge": digest(b"one"), "cron": digest(b"two").upper()})
    assert keys.name_of(b"one") == "edge"
    assert keys.name_of(b"two") == "cron"


@pytest.mark.parametrize("presented", [None, b"", b"three", digest(b"one").encode(), b"\xff\xfe"])
def test_any_other_is_refused(presented: bytes | None) -> None:
    with pytest.raises(Unauthenticated):
        ApiKeys("X-API-Key", {"edge": digest(b"one")}).name_of(presented)


@given(st.tuples(*[st.integers(min_value=0, max_value=2**63 - 1)] * 2))
def test_cursors_read_back(cursor: tuple[int, int]) -> None:
    text = encode_cursor(cursor)
    assert text is not None
    assert decode_cursor(text) == cursor


@given(st.text(max_size=128))
def test_no_text_breaks_the_cursor(text: str) -> None:
    try:
        moment, ticket = decode_cursor(text)
    except InvalidParameters:
        return
    assert 0 <= moment < 2**63
    assert 0 <= ticket < 2**63
