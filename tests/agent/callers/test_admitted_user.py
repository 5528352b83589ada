"""Whom connections are counted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from canhazgpu.agent.callers import admitted_user
from canhazgpu.agent.callers.admitted_user import ROOTS_RANGES, AdmittedUser, AdmittedUsers


@pytest.mark.parametrize(
    ("uid", "counted"),
    [
        (0, 0),
        (4001, 4001),
        (4_100_000_000, 4001),
        (4_100_065_535, 4001),
        (4_100_065_536, 4002),
        # A container of root's takes none of root's places.
        (4_100_200_000, ROOTS_RANGES),
        (4_100_300_000, "nobody-there"),
        (5000, 5000),
    ],
)
def test_subordinate_uids_count_for_their_owner(etc: Path, uid: int, counted: AdmittedUser) -> None:
    assert AdmittedUsers(etc).of(uid) == counted


def test_files_are_read_anew_when_they_change(etc: Path) -> None:
    users = AdmittedUsers(etc)
    assert users.of(4_100_400_000) == 4_100_400_000

    (etc / "subuid").write_text("bob:4100400000:1\n")
    assert users.of(4_100_400_000) == 4002
    (etc / "passwd").write_text("bob:x:4003:1::/:\n")
    assert users.of(4_100_400_000) == 4003
    (etc / "subuid").unlink()
    assert users.of(4_100_400_000) == 4_100_400_000


def test_what_is_kept_is_bounded(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admitted_user, "MAX_KEPT", 10)
    users = AdmittedUsers(etc)

    for uid in range(4_100_000_000, 4_100_000_100):
        assert users.of(uid) == 4001
        assert len(users._known) <= 10
