"""A path that cannot be reached is none that does not exist."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from canhazgpu.path_presence import may_exist

NOBODY = 65534


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_only_what_the_system_calls_missing_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    assert may_exist(tmp_path / "file")
    assert may_exist(tmp_path / "loop")
    assert may_exist(tmp_path / ("x" * 300))
    assert not may_exist(tmp_path / "none")
    assert not may_exist(tmp_path / "dangling")
    assert not may_exist(tmp_path / "file" / "below")
    assert not may_exist(Path("a\0b"))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_file_behind_a_closed_directory_may_exist(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with as_nobody():
        assert may_exist(closed / "none")
    assert not may_exist(closed / "none")
