"""What keys mean, and which lines of a text a page shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.cli.status_display.keys import Key, KeyDecoder
from canhazgpu.cli.status_display.scroll import Page


@pytest.mark.parametrize(
    ("pieces", "keys"),
    [
        ([b"\x1b[A", b"\x1bOA", b"k"], [Key.UP] * 3),
        ([b"\x1b[B\x1bOBj\r"], [Key.DOWN] * 4),
        ([b"\x1b[5~\x1b[6~ b"], [Key.PAGE_UP, Key.PAGE_DOWN, Key.PAGE_DOWN, Key.PAGE_UP]),
        ([b"\x1b[H\x1b[F\x1b[1~\x1b[4~gG"], [Key.FIRST, Key.LAST] * 3),
        # A slow line brings a key in pieces.
        ([b"\x1b", b"[", b"6", b"~"], [Key.PAGE_DOWN]),
        ([b"\x1b[", b"\x01", b"q"], [Key.QUIT]),
        # The escape key means nothing, and takes nothing from the next key.
        ([b"\x1b", b"q"], [Key.QUIT]),
        ([b"\x1b\x1b[A"], [Key.UP]),
        ([b"xyz\xff\x00\x1b[1;5A\x1b[15~\x1b[M"], []),
        ([b"\x1b[" + b"1" * 99, b"q"], [Key.QUIT]),
    ],
)
def test_keys(pieces: list[bytes], keys: list[Key]) -> None:
    decoder = KeyDecoder()
    assert [key for piece in pieces for key in decoder.keys(piece)] == keys


@given(st.lists(st.binary(max_size=6)))
def test_whatever_is_typed_q_still_ends_it(pieces: list[bytes]) -> None:
    decoder = KeyDecoder()
    for piece in pieces:
        decoder.keys(piece)
    # An unfinished sequence takes one letter as its end.
    assert Key.QUIT in [*decoder.keys(b"q"), *decoder.keys(b"q")]


@given(st.integers(0, 50), st.integers(1, 20), st.integers(-5, 99), st.lists(st.sampled_from(Key)))
def test_a_page_never_leaves_its_text(
    length: int, height: int, offset: int, keys: list[Key]
) -> None:
    page = Page(length, height, offset)
    for key in keys:
        page = page.after(key)
    shown = min(height, length)
    assert page.above + shown + page.below == length
    assert page.above >= 0
    assert page.below >= 0


def test_page_keys_keep_a_line_in_sight_and_all_is_reached() -> None:
    page, seen = Page(100, 10), set[int]()
    while page.below:
        seen.update(range(page.above, page.above + page.height))
        moved = page.after(Key.PAGE_DOWN)
        assert moved.above <= page.above + 9
        page = moved
    assert seen | set(range(page.above, 100)) == set(range(100))
    assert page == page.after(Key.LAST) == page.after(Key.DOWN)
    assert page.after(Key.FIRST).above == page.after(Key.FIRST).after(Key.UP).above == 0
