"""The table: its shape, and that no name in it commands the terminal."""

from __future__ import annotations

import pytest

from canhazgpu.cli.table import printable, table_lines
from canhazgpu.status.text import Cells

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
--- ------ ---- -------- ---- ----- ------------------- ----------------------------------
2   in use bob                      WITHOUT RESERVATION 1024MB used by PID 12345 (python3)
"""


def text(*rows: Cells, width: int | None = None) -> str:
    return "".join(f"{line}\n" for line in table_lines(rows, width))


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
        ("\x1b]unfinished", ""),
        ("naïve 漢字", "naïve 漢字"),
    ],
)
def test_names_do_not_command_the_terminal(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown
    assert shown in text(RUN._replace(details=hostile))
    assert len(text(RUN._replace(details=hostile)).splitlines()) == 3
