"""When a watcher is started: not for what hooks empty themselves, and never without need."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass
from pathlib import Path

import pytest
from polling import poll_until

from canhazgpu.agent.listener.watcher_starter import LOOK_AFTER_S, WatcherStarter
from canhazgpu.agent.watcher.journal_watch import JournalWatch
from canhazgpu.agent.watcher.runs.runs_watch import RunsWatch
from canhazgpu.ledger.journal_entries import PROLOG, JournalEntry
from canhazgpu.ledger.local.book.journal import JOURNAL_FILE, Journal
from canhazgpu.ledger.local.runs.run_files import RUNS_DIRECTORY

NODE = "n1"


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def add_entry(directory: Path) -> None:
    journal = Journal(directory / JOURNAL_FILE, NODE)
    journal.append(journal.read(), [JournalEntry(PROLOG, 1.0, reason="a note")])


def empty(directory: Path) -> None:
    journal = Journal(directory / JOURNAL_FILE, NODE)
    pending = journal.read()
    journal.drop(pending, pending.last)


def starter_of(directory: Path, clock: Clock, status: int = 0) -> WatcherStarter:
    def run(_agent: int) -> None:
        os._exit(status)

    return WatcherStarter(JournalWatch(directory), RunsWatch(directory), run, clock=clock)


def add_run(directory: Path, name: str = "run:ab.json") -> None:
    (directory / RUNS_DIRECTORY / name).write_text("{}")


def is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def test_a_journal_has_entries_from_its_second_line_on(tmp_path: Path) -> None:
    watch = JournalWatch(tmp_path)
    assert not watch.has_entries()
    add_entry(tmp_path)
    assert watch.has_entries()
    empty(tmp_path)
    assert not watch.has_entries()
    add_entry(tmp_path)
    assert watch.has_entries()
    (tmp_path / JOURNAL_FILE).unlink()
    assert not watch.has_entries()


def test_a_change_is_seen_however_it_is_made(tmp_path: Path) -> None:
    watch = JournalWatch(tmp_path)
    assert watch.descriptor is not None
    for change in (add_entry, add_entry, empty):
        assert not is_readable(watch.descriptor)
        change(tmp_path)
        assert is_readable(watch.descriptor)
        watch.forget_events()


def test_without_a_directory_to_watch_there_is_no_descriptor(tmp_path: Path) -> None:
    assert JournalWatch(tmp_path / "none").descriptor is None


def test_what_was_left_before_is_looked_at_at_once(tmp_path: Path) -> None:
    add_entry(tmp_path)
    starter = starter_of(tmp_path, Clock())
    assert starter.wait_s == 0.0
    assert starter.is_needed()


def test_with_an_empty_journal_it_only_waits_for_changes(tmp_path: Path) -> None:
    starter = starter_of(tmp_path, Clock())
    assert not starter.is_needed()
    assert starter.wait_s is None
    assert len(starter.descriptors) == 2


def test_changes_are_looked_at_together_and_a_little_later(tmp_path: Path) -> None:
    clock = Clock()
    starter = starter_of(tmp_path, clock)
    assert not starter.is_needed()
    add_entry(tmp_path)
    starter.note_change()
    # Until then it does not even wait for more of them.
    assert starter.wait_s == LOOK_AFTER_S
    assert not any(map(is_readable, starter.descriptors))
    assert not starter.is_needed()
    clock.now += LOOK_AFTER_S / 2
    starter.note_change()
    clock.now += LOOK_AFTER_S / 2
    assert starter.is_needed()


def test_what_a_hook_delivers_itself_needs_no_watcher(tmp_path: Path) -> None:
    clock = Clock()
    starter = starter_of(tmp_path, clock)
    assert not starter.is_needed()
    add_entry(tmp_path)
    starter.note_change()
    empty(tmp_path)
    clock.now += LOOK_AFTER_S
    assert not starter.is_needed()
    assert starter.wait_s is None
    assert len(starter.descriptors) == 2
    assert not any(map(is_readable, starter.descriptors))


@pytest.mark.parametrize("status", [0, 1])
def test_after_a_watcher_it_looks_once_more(tmp_path: Path, status: int) -> None:
    """There may be something new, or it has failed; one that failed is not followed at once."""
    add_entry(tmp_path)
    clock = Clock()
    starter = starter_of(tmp_path, clock, status)
    assert starter.is_needed()
    starter.start()
    assert (starter.wait_s, starter.descriptors) == (None, ())
    faults = []
    poll_until(lambda: faults.append(starter.reap()) or starter.wait_s is not None)
    assert bool(faults[-1]) == bool(status)
    assert starter.is_needed() is (status == 0)
    clock.now += 60
    assert starter.is_needed() is (status == 1)


def test_a_run_is_watched_at_once(tmp_path: Path) -> None:
    clock = Clock()
    starter = starter_of(tmp_path, clock)
    assert not starter.is_needed()
    # Also while a look at the journal is due.
    starter.note_change()
    add_run(tmp_path)
    ready = set(filter(is_readable, starter.descriptors))
    assert ready
    starter.note_ready(ready)
    assert starter.is_needed()


def test_a_change_of_the_journal_is_told_by_its_descriptor(tmp_path: Path) -> None:
    starter = starter_of(tmp_path, Clock())
    assert not starter.is_needed()
    add_entry(tmp_path)
    starter.note_ready(set(filter(is_readable, starter.descriptors)))
    assert starter.wait_s == LOOK_AFTER_S


def test_runs_that_an_agent_has_left_are_watched(tmp_path: Path) -> None:
    starter = starter_of(tmp_path, Clock())
    add_run(tmp_path)
    assert starter.is_needed()


def test_a_draft_is_no_run(tmp_path: Path) -> None:
    starter = starter_of(tmp_path, Clock())
    add_run(tmp_path, ".run:ab.json.new")
    assert not starter.is_needed()
