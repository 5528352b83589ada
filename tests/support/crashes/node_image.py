"""What a node and its store are at one moment: kept, put back, and compared."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import redis

LOCK = ".lock"
"""Files that are locks and nothing else; they stay."""
FOLDERS = ("jobs", "runs", "notices", "hook-locks")
"""Below the state directory: where each owner has a file of its own."""


_RUN = re.compile(r"run:[^.]+")


def store_client(url: str) -> redis.Redis:
    """A client that takes and gives bytes."""
    return redis.Redis.from_url(url)


def remove_files(directory: Path) -> None:
    """Remove the files below it but sockets; directories stay, for they may be watched."""
    for path in directory.rglob("*"):
        if path.is_file():
            path.unlink()


def _sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(directory) / name).is_socket()]


@dataclass(frozen=True, slots=True)
class NodeImage:
    """The content of directories and of a store, as it was when it was taken."""

    copies: Path
    directories: tuple[Path, ...]
    keys: Mapping[bytes, tuple[int, bytes]]

    @classmethod
    def take(cls, copies: Path, directories: tuple[Path, ...], store: redis.Redis) -> NodeImage:
        """Keep the directories' content in `copies`, which is replaced."""
        shutil.rmtree(copies, ignore_errors=True)
        for number, one in enumerate(directories):
            if one.exists():
                shutil.copytree(one, copies / str(number), ignore=_sockets)
        keys = {key: (max(store.pttl(key), 0), store.dump(key)) for key in store.scan_iter()}
        return cls(copies, directories, keys)

    def put_back(self, store: redis.Redis) -> None:
        """Make all as it was."""
        for number, one in enumerate(self.directories):
            remove_files(one)
            if (self.copies / str(number)).exists():
                shutil.copytree(self.copies / str(number), one, dirs_exist_ok=True)
        store.flushall()
        for key, (left_ms, content) in self.keys.items():
            # Who is still connected may write between the two.
            store.restore(key, left_ms, content, replace=True)


@dataclass(frozen=True, slots=True)
class NodeState:
    """Who has what, by each of those who know it; times and numbers are left out.

    `held` and `in_store` have the owners by GPU, `intents` the owners of grants that are open,
    `pending` the kinds of entries that the store lacks, `files` the names of records.
    """

    held: Mapping[str, str] = field(default_factory=dict)
    in_store: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, str] = field(default_factory=dict)
    intents: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    queue: tuple[str, ...] = ()
    queue_in_store: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def differences(self, other: NodeState) -> str:
        """What this has, and the other has not so."""
        names = [
            one.name for one in fields(self) if getattr(self, one.name) != getattr(other, one.name)
        ]
        return ", ".join(f"{one}={getattr(self, one)}, not {getattr(other, one)}" for one in names)

    def faults(self) -> list[str]:
        """What must not be in any state that nothing is under way in."""
        found = []
        if dict(self.held) != dict(self.in_store):
            found.append(f"the book has {dict(self.held)}, the store {dict(self.in_store)}")
        if dict(self.held) != dict(self.published):
            found.append(f"the book has {dict(self.held)}, published {dict(self.published)}")
        if self.intents:
            found.append(f"open grants of {self.intents}")
        if self.pending:
            found.append(f"the store was not told of {self.pending}")
        if self.queue != self.queue_in_store:
            found.append(f"the queue is {self.queue}, in the store {self.queue_in_store}")
        return found


def node_state(directory: Path, ledger: Any, node: str) -> NodeState:
    """Read the state of the node whose records are in the directory."""
    book = _json(directory / "book.json")
    published = _json(directory / "published.json")
    views = ledger.read_nodes([node])
    view = views[0]
    return NodeState(
        {gpu: _name(json.loads(one)["owner"]) for gpu, one in book.get("held", {}).items()},
        {gpu: _name(one.claim.owner) for gpu, one in view.reservations.items()},
        {
            gpu: _name(json.loads(one["record"])["owner"])
            for gpu, one in published.get("gpus", {}).items()
        },
        tuple(json.loads(one["claim"])["owner"] for one in book.get("intents", ())),
        tuple(sorted(view.quarantines)),
        tuple(_entries(directory / "journal")),
        tuple(one["waiter"]["owner"] for one in _json(directory / "queue.json").get("waiting", ())),
        tuple(one.owner for one in view.queue),
        tuple(sorted(_records(directory))),
    )


def _is_draft(name: str) -> bool:
    return name == ".new" or (name.startswith(".run:") and name.endswith(".new"))


def _name(owner: str) -> str:
    """The owner without what is drawn by lot."""
    return owner if owner.startswith("job:") else owner.partition(":")[0]


def _json(path: Path) -> Any:
    with suppress(FileNotFoundError):
        return json.loads(path.read_bytes())
    return {}


def _entries(journal: Path) -> list[str]:
    with suppress(FileNotFoundError):
        lines = journal.read_bytes().split(b"\n")[1:-1]
        return [json.loads(line.partition(b" ")[2])["kind"] for line in lines]
    return []


def _records(directory: Path) -> list[str]:
    found = (path for name in FOLDERS for path in (directory / name).rglob("*"))
    # A draft that there is once is overwritten by the next; one of a run is removed when it is old.
    kept = (one for one in found if not one.name.endswith(LOCK) and not _is_draft(one.name))
    names = [str(path.relative_to(directory)) for path in kept]
    return [_RUN.sub("run", name) for name in names]
