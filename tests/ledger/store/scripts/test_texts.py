"""Each script has the texts whose names it uses, and no others."""

from __future__ import annotations

import re

import pytest

from canhazgpu.ledger.store.script_texts import (
    ALWAYS,
    AT_END,
    WHERE_NEEDED,
    needed_texts,
    own_text,
    script_names,
    script_text,
)

LOCALS = re.compile(r"^local (?:function (\w+)|([\w, ]+?)(?: =|$))", re.MULTILINE)
COMMENT_OR_TEXT = re.compile(r"--.*|'[^'\n]*'")


def names_in(name: str) -> set[str]:
    """The names that a text gives to those after it."""
    found = LOCALS.findall(own_text(name))
    return {word for one in found for word in re.findall(r"\w+", " ".join(one))}


def words_in(name: str) -> set[str]:
    """The words of a text's code; a field of a table is none."""
    return set(re.findall(r"(?<![.\w])[a-z_]\w*", COMMENT_OR_TEXT.sub("", own_text(name))))


@pytest.mark.parametrize("script", script_names())
def test_a_script_has_the_texts_that_it_uses_and_no_others(script: str) -> None:
    own = names_in(script)
    used = [one for one in WHERE_NEEDED if words_in(script) & (names_in(one) - own)]
    assert needed_texts(own_text(script)) == used


@pytest.mark.parametrize("name", [*ALWAYS, *WHERE_NEEDED, *script_names()])
def test_nothing_calls_what_is_made_at_the_end(name: str) -> None:
    calls = set(re.findall(r"(?<![.:\w])(\w+)\(", COMMENT_OR_TEXT.sub("", own_text(name))))
    own = set(re.findall(r"function (\w+)", own_text(name)))
    for body in (one for texts in AT_END.values() for one in texts):
        assert not calls & (set(re.findall(r"local function (\w+)", own_text(body))) - own)


def test_what_no_script_needs_is_in_none() -> None:
    assert "local function observe(" in script_text("confirm")
    assert "local function observe(" not in script_text("record")
    assert "local recorded_key" not in script_text("renew")
    # Made only where it is called, which is once.
    for function in AT_END:
        assert script_text("renew").count(f"local function {function}()") == 1
