"""Root writes in a directory of another user's, and nowhere else, whatever that user puts there."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from canhazgpu.node.state_files import make_directory, write_atomically
from canhazgpu.untrusted_directory import untrusted_directory

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
TEXT = b"root's own"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that nobody but root may change."""
    path = tmp_path / "victim" / "file"
    path.parent.mkdir()
    path.write_bytes(TEXT)
    path.chmod(0o640)
    return path


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Another user's directory."""
    path = tmp_path / "theirs"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    return path


def assert_untouched(victim: Path) -> None:
    found = victim.stat()
    assert victim.read_bytes() == TEXT
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o640)
    assert [one.name for one in victim.parent.iterdir()] == ["file"]


def put(path: Path, content: bytes = b"new") -> None:
    with untrusted_directory(path.parent, makes=True) as directory:
        directory.replace(path.name, content, 0o644)
        assert directory.read(path.name) == content


def test_a_file_is_made_replaced_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    before = os.umask(0o077)
    try:
        put(path)
        put(path, b"newer")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent, path.parents[1])]
    assert modes == [0o644, 0o755, 0o755]
    assert [one.name for one in path.parent.iterdir()] == ["file"]
    with untrusted_directory(path.parent) as directory:
        directory.remove("file")
        directory.remove("file")
        assert directory.read("file") is None


def test_a_missing_directory_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), untrusted_directory(tmp_path / "none" / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", ["link/own/file", "link/../own/file", "relative/../own/file"])
def test_links_of_ones_own_are_followed(tmp_path: Path, way: str) -> None:
    (tmp_path / "place" / "own").mkdir(parents=True)
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "place")
    (tmp_path / "relative").symlink_to("place/own")
    put(tmp_path / way)
    found = [one for one in tmp_path.rglob("file") if one.is_file()]
    assert len(found) == 1 and found[0].resolve() == (tmp_path / way).resolve()


def test_links_that_lead_to_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        put(tmp_path / "a" / "file")


def a_link_in_anothers_directory(theirs: Path, victim: Path) -> None:
    """Root's link, which its directory's owner could have moved there."""
    (theirs / "spot").symlink_to(victim.parent)


def anothers_link(theirs: Path, victim: Path) -> None:
    theirs.rmdir()
    theirs.symlink_to(victim.parent.parent)
    os.chown(theirs, NOBODY, NOBODY, follow_symlinks=False)
    victim.parent.parent.joinpath("spot").symlink_to(victim.parent)


def a_link_where_all_may_write(theirs: Path, victim: Path) -> None:
    os.chown(theirs, 0, 0)
    theirs.chmod(0o777)
    (theirs / "spot").symlink_to(victim.parent)


@needs_root
@pytest.mark.parametrize(
    "prepare", [a_link_in_anothers_directory, anothers_link, a_link_where_all_may_write]
)
def test_a_link_that_another_user_could_have_made_is_refused(
    theirs: Path, victim: Path, prepare: Callable[[Path, Path], None]
) -> None:
    prepare(theirs, victim)
    for path in (theirs / "spot" / "file", theirs / "spot" / "new" / "file"):
        with pytest.raises(PermissionError, match="may be another user's"):
            put(path)
    assert_untouched(victim)


@needs_root
def test_roots_link_in_a_sticky_directory_is_followed(theirs: Path, victim: Path) -> None:
    os.chown(theirs, 0, 0)
    theirs.chmod(0o1777)
    (theirs / "spot").symlink_to(victim.parent)
    put(theirs / "spot" / "other")
    assert (victim.parent / "other").read_bytes() == b"new"


@needs_root
@pytest.mark.parametrize("name", ["file", ".file.new"])
@pytest.mark.parametrize("how", ["symlink", "hard link", "pipe"])
def test_what_stands_in_a_files_place_is_replaced_and_not_written_to(
    theirs: Path, victim: Path, name: str, how: str
) -> None:
    if how == "symlink":
        (theirs / name).symlink_to(victim)
    elif how == "hard link":
        (theirs / name).hardlink_to(victim)
    else:
        os.mkfifo(theirs / name)
    put(theirs / "file")
    assert_untouched(victim)
    assert [one.name for one in theirs.iterdir()] == ["file"]
    assert (theirs / "file").stat().st_uid == 0


@needs_root
def test_a_draft_that_is_another_file_too_is_not_emptied(tmp_path: Path, victim: Path) -> None:
    """Of a file in a directory of the node's own."""
    (tmp_path / ".file.new").hardlink_to(victim)
    write_atomically(tmp_path / "file", b"new")
    assert_untouched(victim)
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_draft_that_was_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_bytes(b"longer than what comes")
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@needs_root
def test_the_mode_of_nothing_else_is_changed_when_a_directory_is_made(
    theirs: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its owner puts a link to a file in the place of what root has just made there."""
    first = Path.mkdir

    def mkdir_and_lose(self: Path, *given: int) -> None:
        first(self, *given)
        self.rmdir()
        self.symlink_to(victim)

    monkeypatch.setattr(Path, "mkdir", mkdir_and_lose)
    with pytest.raises(OSError):
        make_directory(theirs / "spot")
    assert_untouched(victim)
