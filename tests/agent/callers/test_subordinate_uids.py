"""Ranges of subordinate uids, whatever is in the file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.agent.callers.subordinate_uids import MAX_UID, owners_of, parse_subuid

FILE = """
ann:100000:65536
1002:165536:10
# comment:1:2
ann:300000:1
"""


@pytest.mark.parametrize(
    ("uid", "owners"),
    [
        (99_999, set()),
        (100_000, {"ann"}),
        (165_535, {"ann"}),
        (165_536, {"1002"}),
        (165_546, set()),
        (300_000, {"ann"}),
        (1, set()),
    ],
)
def test_a_uid_is_of_whom_the_file_says(uid: int, owners: set[str]) -> None:
    assert owners_of(parse_subuid(FILE), uid) == owners


def test_ranges_may_overlap() -> None:
    ranges = parse_subuid("ann:1000:10\nbob:1005:10")
    assert owners_of(ranges, 1005) == {"ann", "bob"}


@pytest.mark.parametrize(
    "line",
    [
        "ann",
        "ann:",
        "ann:5",
        "ann:5:",
        "ann::5",
        ":5:5",
        "ann:-5:9",
        "ann:5:0",
        "ann:5:-1",
        "ann:0x5:5",
        "ann:5:5:5",
        "ann:٣:٣",
        f"ann:1:{MAX_UID + 1}",
        "ann:1:99999999999999999999",
        "ann:" + "1" * 100_000 + ":1",
        "\0",
        "ann:1 000:5",
    ],
)
def test_a_line_that_is_no_range_is_left_out(line: str) -> None:
    assert parse_subuid(f"{line}\nbob:7:1") == parse_subuid("bob:7:1")


@given(st.text() | st.lists(st.text("ab:0159-# ", max_size=12)).map("\n".join), st.integers(0))
def test_any_text_is_read(text: str, uid: int) -> None:
    for one in parse_subuid(text):
        assert 0 <= one.first <= one.last <= MAX_UID
        assert one.owner
    owners_of(parse_subuid(text), uid)
