"""What is left of a text that is too long for a job's comment."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canhazgpu.schedulers.slurm.control.shortened_comment import (
    LONGEST_WORD,
    MAX_COMMENT,
    shortened_comment,
)

HEAD = "canhazgpu: requeue 1/3: Not enough GPUs available. Requested: 4, Available: 0; "
SINCE = "(since 2026-11-25 13:31)"


def words_of(text: str) -> list[str]:
    return text.replace(",", " ").replace(";", " ").replace(":", " ").split()


def test_a_text_that_fits_is_left_as_it_is() -> None:
    text = ("word  " * 100)[:MAX_COMMENT]
    assert shortened_comment(text) == text


def test_many_users_do_not_displace_the_process() -> None:
    users = ",".join(f"user{number}" for number in range(100))
    text = (
        f"{HEAD}GPU 0 on node n1 is in use by {users} WITHOUT RESERVATION: 8452MB used by"
        f" PID 12345 (python3), PID 23456 (x) and 98 more {SINCE}"
    )
    shown = shortened_comment(text)
    assert len(shown) <= MAX_COMMENT
    assert shown.startswith(f"{HEAD}GPU 0 on node n1 is in use by user0,user1,")
    assert shown.endswith(f" ... PID 12345 (python3) ... {SINCE}")
    assert set(words_of(shown)) - {"..."} <= set(words_of(text))


@pytest.mark.parametrize("name", ["python3", "(sd-pam)", "a b", "ray::Worker"])
@pytest.mark.parametrize("user", ["ann", "DOMAIN\\ann", "ann.lee@site.example", "john doe"])
def test_who_is_meant_is_kept_behind_a_long_beginning(user: str, name: str) -> None:
    text = (
        f"{HEAD}{'GPU 0 on node n1 is quarantined, too hot; ' * 20}GPU 1 on node n1 is in use by"
        f" {user} WITHOUT RESERVATION: 8GB used by PID 7 ({name}) {SINCE}"
    )
    shown = shortened_comment(text)
    assert len(shown) <= MAX_COMMENT
    assert shown.startswith(HEAD)
    assert shown.endswith(f" ... in use by {user} ... PID 7 ({name}) ... {SINCE}")


def test_the_holder_of_a_reservation_is_kept() -> None:
    text = f"{HEAD}{'much more of this ' * 30}GPU 1 is reserved by bob (manual, expires in 2h)"
    assert shortened_comment(text).endswith(" ... reserved by bob")


def test_a_word_without_an_end_is_cut() -> None:
    shown = shortened_comment("canhazgpu: " + "x" * 1000)
    assert len(shown) == MAX_COMMENT
    assert shown.endswith("xxx ...")


@pytest.mark.parametrize("length", range(60, 130))
def test_no_word_is_cut(length: int) -> None:
    shown = shortened_comment("quarantined, unreadable;" + " seven alphabets" * 40, length)
    assert len(shown) <= length
    assert set(words_of(shown)) <= {"quarantined", "unreadable", "seven", "alphabets", "..."}


@given(st.text(max_size=900), st.integers(60, 500))
def test_any_text_is_bounded(text: str, length: int) -> None:
    assert len(shortened_comment(text, length)) <= length


WORDS = st.text(
    st.characters(codec="ascii", exclude_characters=" ,;:()", min_codepoint=33), min_size=1
)
USERS = st.from_regex(r"[a-z][a-z0-9._-]{0,30}", fullmatch=True)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=150), USERS, st.integers(1, 2**22), st.lists(WORDS, max_size=150))
def test_whatever_is_around_them_user_and_process_are_kept_and_no_word_is_cut(
    before: list[str], user: str, pid: int, after: list[str]
) -> None:
    who = f"is in use by {user} WITHOUT RESERVATION: 8GB used by PID {pid} (python3)"
    note = f"canhazgpu: requeue 1/3: {' '.join(before)} GPU 0 {who}, {' '.join(after)}"
    shown = shortened_comment(note)
    assert len(shown) <= MAX_COMMENT
    assert f"in use by {user}" in shown and f"PID {pid} (python3)" in shown
    long = {word for word in note.split() if len(word) > LONGEST_WORD}
    kept = {word.rstrip(",;:") for word in note.split()} | {"..."}
    cut = {word for word in shown.split() if word.rstrip(",;:") not in kept}
    assert all(any(word.startswith(part) for word in long) for part in cut)
