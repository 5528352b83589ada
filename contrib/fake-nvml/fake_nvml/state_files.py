"""The files of the state: every change is one rename, so no reader ever sees half of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path


def make_directory(path: Path, mode: int = 0o755) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)


def make_device(path: Path, fields: Mapping[str, int | str]) -> None:
    with _new_directory(path) as new:
        for field, value in fields.items():
            write_file(new / field, f"{value}\n")
        make_directory(new / "processes", 0o1777)


@contextlib.contextmanager
def _new_directory(path: Path) -> Iterator[Path]:
    """A directory under another name, which appears under its own when it is complete."""
    hidden = path.with_name(f".{path.name}.new")
    make_directory(hidden)
    yield hidden
    hidden.rename(path)


def write_file(path: Path, text: str | None) -> None:
    """Replace a file at once, or remove it. Readers skip names that begin with a dot."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    hidden = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    hidden.write_text(text)
    hidden.chmod(0o644)
    hidden.rename(path)


def remove_tree(path: Path) -> None:
    """Take a directory away at once, then delete it."""
    if path.exists():
        hidden = path.with_name(f".{path.name}.old.{uuid.uuid4().hex[:8]}")
        path.rename(hidden)
        shutil.rmtree(hidden)
