"""Values that no program of ours writes: any at all, and records of ours with something changed."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**400), 1e308, -1.0, 0, 2**63, 2**64, 1e18]),
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "\x1b[31m", "\u202e", "a\nb", "unreadable", "shared", "job:c1:12:0", "x" * 5000]
    ),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
CONTENTS = st.one_of(
    st.binary(max_size=60),
    VALUES.map(lambda one: json.dumps(one).encode()),
    st.sampled_from(
        [
            b"",
            b"{",
            b"[" * 2000,
            b'{"a":' * 2000,
            b"\xff\xfe",
            b"null",
            b"9" * 5000,
            b'"\\ud800"',
            b"{}",
        ]
    ),
)
"""What a file or a value may have in it."""


@st.composite
def changed(draw: st.DrawFn, known: bytes) -> bytes:
    """JSON of ours with one thing changed at any depth; any content for what is no JSON."""
    try:
        record = json.loads(known)
    except ValueError:
        return draw(CONTENTS)
    return json.dumps(_changed(draw, copy.deepcopy(record))).encode()


def _changed(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value:
        name = draw(st.sampled_from(sorted(value)))
        what = draw(st.sampled_from(["below", "below", "gone", "added"]))
        if what == "gone":
            del value[name]
        elif what == "added":
            value[draw(TEXTS)] = draw(VALUES)
        else:
            value[name] = _changed(draw, value[name])
        return value
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        value[place] = _changed(draw, value[place])
        return value
    if isinstance(value, str) and value.startswith("{") and draw(st.booleans()):
        return draw(changed(value.encode())).decode()
    return draw(VALUES)


@st.composite
def damaged(draw: st.DrawFn, known: bytes) -> bytes:
    """A content of ours, cut short, with bytes changed, with a part changed, or any other."""
    how = draw(st.sampled_from(["part", "part", "cut", "bytes", "any"]))
    if how == "part":
        return draw(changed(known))
    if how == "cut":
        return known[: draw(st.integers(0, len(known)))]
    if how == "bytes" and known:
        place = draw(st.integers(0, len(known) - 1))
        return known[:place] + draw(st.binary(min_size=1, max_size=3)) + known[place + 1 :]
    return draw(CONTENTS)
