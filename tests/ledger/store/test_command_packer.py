"""Commands are packed as redis-py packs them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis._parsers.encoders import Encoder
from redis.connection import PythonRespSerializer
from redis.exceptions import DataError

from canhazgpu.ledger.store.answer_wait import CommandPacker

ENCODER = Encoder("utf-8", "replace", True)
WORDS = st.one_of(st.text(), st.binary(), st.integers(), st.floats(allow_nan=False))


@given(
    name=st.sampled_from(["GET", "SCRIPT LOAD", b"CONFIG SET", b"HGETALL"]), rest=st.lists(WORDS)
)
def test_a_command_has_the_bytes_of_redis_py(name: Any, rest: list[Any]) -> None:
    by_redis_py = PythonRespSerializer(6000, ENCODER.encode).pack(name, *rest)
    assert CommandPacker(ENCODER.encode).pack(name, *rest) == [b"".join(by_redis_py)]


@pytest.mark.parametrize("word", [None, True, ["a"]])
def test_what_redis_py_refuses_is_refused(word: object) -> None:
    with pytest.raises(DataError):
        CommandPacker(ENCODER.encode).pack("SET", "a", word)
