"""Directories of the node's own that its users read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from canhazgpu.node.state_files import open_directory_to_users


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize("closed", [0o700, 0o711, 0o777, 0o2770, 0])
def test_a_mode_is_mended(tmp_path: Path, closed: int) -> None:
    place = tmp_path / "records"
    place.mkdir()
    place.chmod(closed)
    open_directory_to_users(place)
    assert mode(place) == 0o755


def test_a_directory_is_made_and_a_link_of_our_own_is_followed(tmp_path: Path) -> None:
    open_directory_to_users(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o755
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a").chmod(0o700)
    open_directory_to_users(tmp_path / "link")
    assert mode(tmp_path / "a") == 0o755


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "dangling"):
        with pytest.raises(OSError):
            open_directory_to_users(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
@pytest.mark.parametrize("how", ["owned", "linked to", "link owned"])
def test_another_users_directory_is_refused_and_left_as_it_is(tmp_path: Path, how: str) -> None:
    place, target = tmp_path / "records", tmp_path / "target"
    target.mkdir(mode=0o700)
    if how == "owned":
        target.rename(place)
        os.chown(place, 65534, 65534)
    else:
        place.symlink_to(target)
        os.chown(place if how == "link owned" else target, 65534, 65534, follow_symlinks=False)
    with pytest.raises(PermissionError, match="it belongs to uid 65534"):
        open_directory_to_users(place)
    assert mode(place) == 0o700
