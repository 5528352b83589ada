#!/usr/bin/python3
"""Run canhazgpu as it is installed, and note when the second look at a grant's GPUs began.

    noting_agent.py LOOKS WEAKNESS[,WEAKNESS...] agent run

No task can tell when this was, and a judge has to know. To try the judge, it can also be weakened;
`strong` changes nothing:

``slow-book``       some readers of the node's book take half a second before they write it
``no-lock``         and nobody else is kept from it meanwhile
``slow-grant``      between the first look and the grant two seconds pass
``no-second-look``  and whatever the second look sees is taken for nothing
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from canhazgpu.allocation import allocator
from canhazgpu.allocation.allocator import GpuAllocator
from canhazgpu.cli.entry import main
from canhazgpu.ledger.local.book import book_file
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.values import Claim

NOTE = "soak "
SLOW_PART, SLOW_BOOK_S, SLOW_GRANT_S = 0.3, 0.5, 2.0


def note_looks(path: str) -> None:
    """Append a line for each second look: node, whose, and when it began."""
    began = [0.0]
    look_class = allocator._SecondLook
    begin, scan, find = look_class.begin, look_class.scan, GpuAllocator._find_intruders

    def noting_begin(self: Any) -> None:
        began[0] = time.clock_gettime(time.CLOCK_BOOTTIME)
        begin(self)

    def noting_scan(self: Any) -> Any:
        if self._begun is None:
            began[0] = time.clock_gettime(time.CLOCK_BOOTTIME)
        return scan(self)

    def noting_find(self: GpuAllocator, claim: Claim, *rest: Any) -> Any:
        line = f"{self.node} {key_of(claim)} {began[0]:.3f}\n"
        with open(path, "a") as file:  # noqa: PTH123 - imports nothing in a handler
            file.write(line)
        return find(self, claim, *rest)

    replace(look_class, "begin", noting_begin)
    replace(look_class, "scan", noting_scan)
    replace(GpuAllocator, "_find_intruders", noting_find)


def key_of(claim: Claim) -> str:
    """Return how `status` names the reservation to the soak: ``job:12``, ``run:7``."""
    if claim.job_id:
        return f"job:{claim.job_id}"
    kind = "run" if claim.type == "run" else "reserve"
    return f"{kind}:{(claim.note or '').removeprefix(NOTE)}"


def slow_book() -> None:
    """Let time pass between a reading of the book and its writing, now and then."""
    read = BookFile._read

    def slow_read(self: BookFile) -> Any:
        found = read(self)
        if random.SystemRandom().random() < SLOW_PART:
            time.sleep(SLOW_BOOK_S)
        return found

    replace(BookFile, "_read", slow_read)


def take_lock_out() -> None:
    """Let several processes have the book at once."""

    @contextlib.contextmanager
    def unlocked(*_: Any) -> Iterator[None]:
        yield

    replace(book_file, "file_lock", unlocked)


def slow_grant() -> None:
    """Let time pass between the first look and the grant."""
    make = allocator._SecondLook.__init__

    def slow_make(self: Any, *arguments: Any) -> None:
        time.sleep(SLOW_GRANT_S)
        make(self, *arguments)

    replace(allocator._SecondLook, "__init__", slow_make)


def take_second_look_out() -> None:
    """Let the second look find nothing; when it would have been is noted all the same."""
    find = GpuAllocator._find_intruders

    def find_nothing(self: GpuAllocator, *arguments: Any) -> tuple[()]:
        find(self, *arguments)
        return ()

    replace(GpuAllocator, "_find_intruders", find_nothing)


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace what the product calls by this name, which it has to have."""
    getattr(owner, name)
    setattr(owner, name, value)


WEAKNESSES: dict[str, Callable[[], None]] = {
    "strong": lambda: None,
    "slow-book": slow_book,
    "no-lock": take_lock_out,
    "slow-grant": slow_grant,
    "no-second-look": take_second_look_out,
}

if __name__ == "__main__":
    note_looks(sys.argv[1])
    for weakness in sys.argv[2].split(","):
        WEAKNESSES[weakness]()
    sys.argv = [os.path.join(os.path.dirname(sys.executable), "canhazgpu"), *sys.argv[3:]]  # noqa: PTH118, PTH120
    main()
