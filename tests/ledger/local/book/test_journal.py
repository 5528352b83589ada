"""The journal: what was written is there, whatever a crash or somebody else did to the file."""

from __future__ import annotations

import errno
import json
import os
import stat
import zlib
from pathlib import Path
from typing import Any

import pytest

from canhazgpu.ledger.journal_entries import GRANT, PROLOG, QUARANTINE, RELEASE, JournalEntry
from canhazgpu.ledger.local.book.journal import Journal, pending_entries
from canhazgpu.ledger.values import Claim

CLAIM = Claim("job:c1:1:0", "slurm", "ann", 1000, "1", 'a "name"\n\x1b', boot_id="b", ends_at=5.5)
ENTRIES = (
    JournalEntry(GRANT, 1.25, CLAIM.owner, ("GPU-a", "GPU-b"), CLAIM, "alone"),
    JournalEntry(RELEASE, 2.5, CLAIM.owner, reason="job ended", by="root"),
    JournalEntry(QUARANTINE, 3.0, gpus=("GPU-a",), reason="memory stays", by="epilog"),
    JournalEntry(PROLOG, 4.0, CLAIM.owner, claim=CLAIM, facts={"outcome": "granted", "seen": []}),
    JournalEntry(GRANT, 5.0, "manual:a", ("GPU-c",), CLAIM, expires_at=9.5, yields=True),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(path: Path) -> Journal:
    return Journal(path, "n1")


def write(journal: Journal, *entries: JournalEntry) -> None:
    for entry in entries:
        journal.append(journal.read(), [entry])


def entries(journal: Journal) -> list[JournalEntry]:
    return [one.entry for one in journal.read().entries]


def sealed(data: dict[str, Any]) -> bytes:
    text = json.dumps(data).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def test_what_is_written_is_read_as_it_was(journal: Journal, path: Path) -> None:
    write(journal, *ENTRIES)
    assert entries(journal) == list(ENTRIES)
    assert [one.number for one in journal.read().entries] == [1, 2, 3, 4, 5]
    assert pending_entries(path.parent, "n1") == list(ENTRIES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_written_by_reading(journal: Journal, path: Path) -> None:
    assert entries(journal) == []
    assert not path.exists()


def test_several_are_written_with_one_write(journal: Journal) -> None:
    after = journal.append(journal.read(), ENTRIES)
    assert after == journal.read()


def test_what_was_dropped_stays_dropped_and_its_numbers_are_not_used_again(
    journal: Journal,
) -> None:
    write(journal, *ENTRIES[:3])
    token = journal.read().token
    journal.drop(journal.read(), 2)
    assert entries(journal) == [ENTRIES[2]]
    journal.drop(journal.read(), 3)
    assert entries(journal) == []
    write(journal, ENTRIES[3])
    (one,) = journal.read().entries
    assert one.number == 4
    assert journal.read().token == token


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_line_that_a_crash_cut_short_was_never_begun(
    journal: Journal, path: Path, cut: int
) -> None:
    write(journal, *ENTRIES[:2])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert entries(journal) == [ENTRIES[0]]
    assert journal.read().damage == ""
    write(journal, ENTRIES[2])
    assert entries(journal) == [ENTRIES[0], ENTRIES[2]]
    assert [one.number for one in journal.read().entries] == [1, 2]


def test_a_first_line_cut_short_is_no_journal_and_nothing_is_lost_by_it(
    journal: Journal, path: Path
) -> None:
    write(journal, ENTRIES[0])
    path.write_bytes(path.read_bytes()[:20])
    assert "moved to" in journal.read().damage
    assert path.with_name("journal.unreadable").exists()
    write(journal, ENTRIES[1])
    assert entries(journal) == [ENTRIES[1]]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"garbage\n",
        b"\xff\xfe\n",
        b"00000000 {}\n",
        sealed({}),
        sealed({"number": 2}),
        sealed({"number": "2", "kind": "release", "at": 1, "owner": "x"}),
        sealed({"number": 2, "kind": "explode", "at": 1, "owner": "x"}),
        sealed({"number": 2, "kind": "release", "at": 1}),
        sealed({"number": 2, "kind": "grant", "at": 1, "owner": "x", "gpus": ["GPU-a"]}),
        sealed({"number": 2, "kind": "grant", "at": 1, "owner": "x", "claim": "{}"}),
        sealed({"number": 2, "kind": "release", "at": "now", "owner": "x"}),
        sealed({"number": 2, "kind": "release", "at": 1, "owner": 7}),
        sealed({"number": 2, "kind": "release", "at": 1, "owner": "x", "gpus": "GPU-a"}),
        sealed({"number": 2, "kind": "prolog", "at": 1, "facts": []}),
        b"00000000 " + b"[" * 100000 + b"\n",
    ],
)
def test_a_line_that_is_no_entry_is_left_out_and_told(
    journal: Journal, path: Path, line: bytes
) -> None:
    write(journal, ENTRIES[0])
    with path.open("ab") as stream:
        stream.write(line)
    write(journal, ENTRIES[1])
    assert entries(journal) == [ENTRIES[0], ENTRIES[1]]
    assert "left out: 1 lines" in journal.read().damage
    journal.drop(journal.read(), journal.read().last)
    assert journal.read().damage == ""


@pytest.mark.parametrize(
    "head",
    [
        {"format": 2, "node": "n1", "token": "t", "after": 0},
        {"format": 1, "node": "n2", "token": "t", "after": 0},
        {"format": 1, "node": "n1", "after": 0},
        {"format": 1, "node": "n1", "token": "t", "after": "many"},
        [],
    ],
)
def test_another_releases_or_nodes_journal_is_set_aside(
    journal: Journal, path: Path, head: Any
) -> None:
    path.write_bytes(sealed(head) + sealed({"number": 1, "kind": "release", "at": 1, "owner": "x"}))
    assert "is no journal of this node" in journal.read().damage
    assert entries(journal) == []
    assert path.with_name("journal.unreadable").exists()


def test_another_users_file_and_a_link_are_not_read(
    journal: Journal, path: Path, tmp_path: Path
) -> None:
    write(journal, ENTRIES[0])
    os.chown(path, 65534, 65534)
    assert entries(journal) == []
    # What is written next is this user's own again.
    write(journal, ENTRIES[1])
    assert entries(journal) == [ENTRIES[1]]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError) as failure:
        journal.read()
    assert failure.value.errno == errno.ELOOP


def test_a_full_disk_leaves_the_journal_as_it_was(path: Path) -> None:
    """Where a write comes about in part, that part is no entry."""
    journal = Journal(path, "n1")
    write(journal, ENTRIES[0])
    pending = journal.read()
    with path.open("ab") as stream:
        stream.write(b"0badc0de {")
    # Whoever appends next, with what it had read before or after, begins behind the last line.
    journal.append(pending, [ENTRIES[1]])
    assert entries(journal) == [ENTRIES[0], ENTRIES[1]]
