"""The table: its shape, and that no name in it commands the terminal."""

from __future__ import annotations

import re

import pytest

from canhazgpu.cli.status_display.table import table_lines
from canhazgpu.cli.terminal.text import printable, truncated
from canhazgpu.status.table_cells import Cells, Tone, Tones

AVAILABLE = Cells("0", "available", "", "", "", "", "free for 30m", "45MB used")
RUN = Cells("1", "in use", "alice", "15m 30s", "run", "llama-2-7b-chat", "heartbeat 5s ago",
            "8452MB, 1 processes")  # fmt: skip
INTRUDER = Cells("2", "in use", "bob", "", "", "", "WITHOUT RESERVATION",
                 "1024MB used by PID 12345 (python3)")  # fmt: skip

USUAL = """\
GPU STATUS    USER     DURATION    TYPE    MODEL            DETAILS                    VALIDATION
--- --------- -------- ----------- ------- ---------------- -------------------------- ---------------------
0   available                                               free for 30m               45MB used
1   in use    alice    15m 30s     run     llama-2-7b-chat  heartbeat 5s ago           8452MB, 1 processes
"""  # noqa: E501 - the table is that wide

NARROW = """\
GPU STATUS USER DURATION TYPE MODEL DETAILS             VALIDATION
--- ------ ---- -------- ---- ----- ------------------- ---------------------
2   in use bob                      WITHOUT RESERVATION 1024MB used by PID 12345 (python3)
"""


BUSY = Cells("3", "quarantined", "alice,bob,charlie", "1h 2m 15s", "manual", "llama-2-7b-chat",
             "bob WITHOUT RESERVATION: PID 23456 (python3); expires in 3h 15m 45s",
             "2048MB used by PID 12345 (python3), PID 23456 (pytorch) and 2 more")  # fmt: skip

CUT = """\
GPU STATUS      USER  DURATION  TYPE   MODEL DETAILS             VALIDATION
--- ----------- ----- --------- ------ ----- ------------------- ----------
3   quarantined alic… 1h 2m 15s manual llam… bob WITHOUT RESERV… 2048MB us…
0   available                                free for 30m        45MB used
2   in use      bob                          WITHOUT RESERVATION 1024MB us…
"""


def text(*rows: Cells, width: int | None = None, cut: bool = True) -> str:
    return "".join(f"{line}\n" for line in table_lines(rows, width, cut=cut))


def test_the_usual_table() -> None:
    assert text(AVAILABLE, RUN) == USUAL
    assert text(AVAILABLE, RUN, width=108) == USUAL


def test_a_narrow_terminal_gets_columns_as_wide_as_their_content_and_nothing_cut() -> None:
    assert text(INTRUDER, width=100) == NARROW


def test_columns_grow_with_their_content() -> None:
    lines = text(INTRUDER._replace(user="alice,bob,charlie")).splitlines()

    assert lines[1].split()[2] == "-" * len("alice,bob,charlie")
    assert lines[0].index("DURATION") == lines[2].index("alice") + len("alice,bob,charlie") + 1


def test_wide_characters_keep_the_columns() -> None:
    lines = text(RUN._replace(user="漢字")).splitlines()

    assert lines[2].index("15m") == lines[0].index("DURATION") - 2


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07name", "name"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jclear", "clear"),
        ("a\nb\rc\td\x08\x00\x7f", "abcd"),
        ("\u202etxt.exe", "txt.exe"),
        ("a\u2028b", "ab"),
        ("\udcff", ""),
        ("\x1b", ""),
        ("\x1bcreset", "reset"),
        ("\x1b]unfinished", "unfinished"),
        ("naïve 漢字", "naïve 漢字"),
    ],
)
def test_names_do_not_command_the_terminal(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown
    assert shown in text(RUN._replace(details=hostile))
    assert len(text(RUN._replace(details=hostile)).splitlines()) == 3


def test_a_terminal_that_is_too_narrow_gets_cells_that_are_cut() -> None:
    assert text(BUSY, AVAILABLE, INTRUDER, width=76) == CUT


@pytest.mark.parametrize("width", range(74, 260))
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    rows = [AVAILABLE, RUN, INTRUDER, BUSY, BUSY._replace(user="漢字" * 9, details="e\u0301" * 99)]

    assert max(map(columns, table_lines(rows, width))) <= width


def test_a_terminal_narrower_than_the_headings_cuts_no_further() -> None:
    assert text(BUSY, width=10) == text(BUSY, width=1)
    assert "3   quarantined" in text(BUSY, width=10)


def test_what_one_column_does_not_need_goes_to_the_others() -> None:
    line = text(BUSY._replace(user="al", model=""), width=100).splitlines()[2]

    # Fewer columns of the terminal are left over than there are to share them.
    assert 96 < len(line) <= 100
    details, validation = line[line.index("manual") :].split("bob")[1].split("…")[:2]
    assert abs(len(f"bob{details}") - len(validation.strip())) <= 1


@pytest.mark.parametrize(("width", "cut"), [(None, True), (None, False), (76, False)])
def test_nothing_is_cut_without_a_terminal_or_where_all_is_wanted(
    width: int | None, cut: bool
) -> None:
    line = text(BUSY, width=width, cut=cut).splitlines()[2]

    assert all(cell in line for cell in BUSY)


ON_80_COLUMNS = """\
GPU STATUS    USER DETAILS             VALIDATION
--- --------- ---- ------------------- ---------------------
0   available      free for 30m        45MB used
2   in use    bob  WITHOUT RESERVATION 1024MB used by PID 12345 (python3)
"""


def test_empty_columns_give_way_before_a_cell_is_cut() -> None:
    assert text(AVAILABLE, INTRUDER, width=80) == ON_80_COLUMNS
    # As many as are in the way, and none where nothing is.
    assert "MODEL" not in text(AVAILABLE, INTRUDER, width=92)
    assert "TYPE" in text(AVAILABLE, INTRUDER, width=92)
    assert "MODEL" in text(AVAILABLE, INTRUDER, width=93)
    assert "MODEL" in text(AVAILABLE, INTRUDER)


def test_a_pid_is_cut_after_what_stands_beside_it() -> None:
    long = INTRUDER._replace(user="a-long-user-name", model="llama-2-7b-chat")
    line = text(long, AVAILABLE, RUN, width=85).splitlines()[2]
    assert line.endswith("1024MB used by PID 12345 …")
    assert len(line) <= 85
    intruded = RUN._replace(details="bob WITHOUT RESERVATION: PID 23456 (python3)", user="al")
    assert "PID 23456 …" in text(intruded, width=92)


def test_utilization_is_a_column_of_its_own() -> None:
    lines = list(table_lines([RUN, AVAILABLE], 80, cut=False, utilization=["87%", "N/A"]))
    assert lines[0].split()[5:8] == ["MODEL", "UTIL", "DETAILS"]
    assert lines[2][lines[0].index("UTIL") :].startswith("87% ")
    assert lines[3][lines[0].index("UTIL") :].startswith("N/A ")


@pytest.mark.parametrize(
    ("given", "width", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("漢字漢字", 8, "漢字漢字"),
        ("漢字漢字", 7, "漢字漢…"),
        ("漢字漢字", 6, "漢字…"),
        ("e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"),
        ("e\u0301e\u0301e\u0301", 2, "e\u0301…"),
    ],
)
def test_cutting(given: str, width: int, shown: str) -> None:
    assert truncated(given, width) == shown


def test_a_heap_of_marks_stays_on_its_line() -> None:
    assert printable("a" + "\u0301" * 500 + "b") == "a" + "\u0301" * 3 + "b"


def plain(line: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", line)


@pytest.mark.parametrize("width", [None, 76, 100])
def test_colour_changes_no_width(width: int | None) -> None:
    rows = [AVAILABLE, RUN, INTRUDER, BUSY]
    coloured = [
        Tones(Tone.FREE, Tone.PLAIN),
        Tones(Tone.IN_USE, Tone.PLAIN),
        Tones(Tone.ALARM, Tone.ALARM),
        Tones(Tone.IN_USE, Tone.ALARM),
    ]

    lines = list(table_lines(rows, width, tones=coloured))

    assert [plain(line) for line in lines] == list(table_lines(rows, width))
    assert lines[0].isprintable()
    assert "\x1b[32mavailable\x1b[0m" in lines[2]
    assert "\x1b[33min use\x1b[0m" in lines[3]
    assert "\x1b[31min use\x1b[0m" in lines[4]
    assert "\x1b[31mWITHOUT RESERVATION\x1b[0m" in lines[4]
    assert "\x1b[31mbob" in lines[5]


def columns(line: str) -> int:
    """The columns of a terminal, counted without the code under test."""
    return sum(0 if one == "\u0301" else 2 if one in "漢字" else 1 for one in line)
