"""What users are told of at their next command: kept by root, told once."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from canhazgpu.ledger.local.notices import DIRECTORY, MAX_NOTICES, Notices
from canhazgpu.ledger.notice import Notice
from canhazgpu.people.revocations import notice_text

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps notices")
NOTICE = Notice("GPU 1", 100.0, "root@login1", "maintenance")


def test_a_notice_is_told_once_and_to_its_user_alone(tmp_path: Path) -> None:
    notices = Notices(tmp_path / "state")
    assert notices.take(7) == ()
    notices.add(7, NOTICE)

    assert notices.take(8) == ()
    assert list(notices.take(7)) == [NOTICE]
    assert list(notices.take(7)) == []


def test_nobody_else_reads_them(tmp_path: Path) -> None:
    Notices(tmp_path).add(7, NOTICE)

    assert stat.S_IMODE((tmp_path / DIRECTORY).stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / DIRECTORY / "7.json").stat().st_mode) == 0o600


def test_the_latest_stay(tmp_path: Path) -> None:
    notices = Notices(tmp_path)
    for number in range(MAX_NOTICES + 5):
        notices.add(7, Notice(f"GPU {number}", 1.0, "", "x" * 9000))

    found = notices.take(7)

    assert [one.gpus for one in found] == [f"GPU {n}" for n in range(5, MAX_NOTICES + 5)]
    assert all(len(one.reason) == 500 for one in found)


def test_many_who_add_and_take_at_once_lose_and_double_none(tmp_path: Path) -> None:
    def add(number: int) -> None:
        Notices(tmp_path).add(7, Notice(f"GPU {number}", 1.0, "", "x"))

    def take(_: int) -> list[str]:
        return [one.gpus for one in Notices(tmp_path).take(7)]

    with ThreadPoolExecutor(8) as pool:
        adding = pool.map(add, range(MAX_NOTICES))
        taken = [gpu for some in pool.map(take, range(30)) for gpu in some]
        list(adding)
    taken += take(0)

    assert sorted(taken) == sorted(f"GPU {n}" for n in range(MAX_NOTICES))


@pytest.mark.parametrize("content", [b"", b"x", b"{}", b"[1]", b'[{"gpus":1}]', b"[[[", b"\xff"])
def test_a_file_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    notices = Notices(tmp_path)
    notices.add(7, NOTICE)
    (tmp_path / DIRECTORY / "7.json").write_bytes(content)

    assert list(notices.take(7)) == []
    notices.add(7, NOTICE)
    assert list(notices.take(7)) == [NOTICE]


def test_what_cannot_be_kept_is_lost(tmp_path: Path) -> None:
    (tmp_path / DIRECTORY).write_text("no directory")
    notices = Notices(tmp_path)

    notices.add(7, NOTICE)
    notices.add(None, NOTICE)

    assert notices.take(7) == ()


def test_who_is_not_root_has_none(tmp_path: Path) -> None:
    notices = Notices(tmp_path)
    notices.add(65534, NOTICE)
    os.seteuid(65534)
    try:
        notices.add(65534, NOTICE)
        assert notices.take(65534) == ()
    finally:
        os.seteuid(0)
    assert list(notices.take(65534)) == [NOTICE]


def test_the_text_of_a_notice() -> None:
    assert notice_text(NOTICE, "n1", 400.0) == (
        "GPU 1 of n1 was taken from you 5m ago by root@login1: maintenance"
    )
    assert notice_text(Notice("GPU 0, 1", 500.0, "", "x"), "n1", 400.0) == (
        "GPU 0, 1 of n1 were taken from you 0s ago: x"
    )
