"""Durations as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.durations import parse_duration
from canhazgpu.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86400),
        ("0.5h", 1800),
        ("1.25d", 108000),
        ("90s", 90),
        ("1s", 1),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("3h 15m 45s", 11745),
        ("1d12h", 129600),
        ("1d1h1m1s", 90061),
        (" 2h ", 7200),
        ("007m", 420),
        ("90m", 5400),
        ("3650d", 315360000),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", "h", "m30", "30", "0", "1.5.2h", "-1h", "+1h", "1h-", "1h-30m", "--1h", "1,5h"],
        *["1e9d", "1e3s", "nan", "inf", "nanh", "infd", "1_0m", "0x1h", "1h1h", "30m1h", "1 h"],
        *[
            "\u0661h",
            "\uff11h",
            "²m",
            "2H",
            "2hours",
            "1w",
            "1y",
            "1h,30m",
            "2h\x00",
            "1:30",
            ".5h",
            "1.h",
        ],
        *["9" * 10 + "s", "1" * 5000 + "h", "1.0000000001h", "2h;", "\x1b[2J", "None"],
    ],
)
def test_anything_else_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_duration(text)

    assert "is not a duration; " in str(caught.value)
    assert str(caught.value).endswith("accepted: 90s, 30m, 2h, 1d, 0.5h or 1h30m")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("text", ["0s", "0h", "0.0d", "0.5s", "0h0m0s", "0.000000001d"])
def test_less_than_a_second_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is too short; accepted: from 1s up"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["3651d", "3650d1s", "999999999d", "87601h"])
def test_more_than_ten_years_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is too long; accepted: up to 10 years"):
        parse_duration(text)


def test_a_number_alone_is_asked_for_its_unit() -> None:
    with pytest.raises(InputError, match=r"'30' is not a duration; say the unit, as 30m; accepted"):
        parse_duration("30")


@given(st.text(alphabet="0123456789.dhms- en", max_size=12))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except InputError:
        return
    assert math.isfinite(seconds)
    assert 1 <= seconds <= 3650 * 86400
