"""Read Slurm's configuration files with the files that they include.

Where a relative ``Include`` leads depends on the release: 22.05 looks beside the file that has the
line, 24.11 beside ``slurm.conf``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from canhazgpu.errors import ConfigError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.schedulers.slurm.conf.parser import (
    ConfLine,
    included_file,
    logical_lines,
    parse_pairs,
)

MAX_INCLUDE_DEPTH = 16
"""Slurm itself has no limit; files that include each other end it."""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What changes with a file's text: modification time, size and inode; all 0 for no file."""

    modified_ns: int = 0
    size: int = 0
    inode: int = 0


@dataclass(frozen=True, slots=True)
class _LogicalLine:
    """A line and its number: the file that it includes and the text behind, or pairs and rest."""

    number: int
    include: tuple[str, str] | None
    line: ConfLine


@lru_cache(maxsize=16)
def _parsed(path: str, text: str) -> tuple[_LogicalLine, ...]:
    """Return the lines of a file with this text.

    They depend on nothing else, so they are kept: a hook reads some files several times, and the
    agent's handlers have them from their parent, as long as the text is the same.
    """
    found = []
    for number, line in logical_lines(text):
        if include := included_file(line):
            found.append(_LogicalLine(number, include, ConfLine({}, include[1], path, number)))
            continue
        pairs, rest = parse_pairs(line)
        if pairs or rest:
            found.append(_LogicalLine(number, None, ConfLine(pairs, rest, path, number)))
    return tuple(found)


class ConfFiles:
    """The files below one Slurm configuration, and which of them were read.

    `stamps` has each file that was looked for. `cluster` is the ClusterName read so far, which
    ``%c`` in an Include stands for. `root` is where the host's files are, for a directory in an
    image of it.
    """

    def __init__(self, directory: Path, root: Path = Path("/")) -> None:
        self._directory = directory
        self._root = root
        self.stamps: dict[str, FileStamp] = {}
        self.cluster = ""

    def lines(self, path: Path) -> Iterator[ConfLine]:
        """Yield the lines of a file and of those that it includes. An absent file counts as empty.

        Raises `ConfigError` for a file that cannot be read, and for an included one that is absent:
        slurmd does not start without it.
        """
        text = self._read(path)
        return iter(()) if text is None else self._lines(path, text, 0)

    def _lines(self, path: Path, text: str, depth: int) -> Iterator[ConfLine]:
        for one in _parsed(str(path), text):
            origin = f"{path} line {one.number}"
            if one.include:
                yield from self._included(one.include[0], path, origin, depth + 1)
                if one.line.rest:
                    yield one.line
                continue
            if not one.line.pairs and included_file(one.line.rest):
                raise ConfigError(f"{origin}: Include is not the first word of its line")
            self.cluster = one.line.pairs.get("clustername", self.cluster)
            yield one.line

    def _included(self, name: str, path: Path, origin: str, depth: int) -> Iterator[ConfLine]:
        if depth > MAX_INCLUDE_DEPTH:
            raise ConfigError(f"{origin}: more than {MAX_INCLUDE_DEPTH} files include each other")
        if "%c" in name:
            if not self.cluster:
                raise ConfigError(f"{origin}: Include {name} needs ClusterName= in front of it")
            name = name.replace("%c", lower_as_slurm(self.cluster))
        known = {}
        for base in dict.fromkeys((path.parent, self._directory)):
            file = self._root / name[1:] if name.startswith("/") else base / name
            text = self._read(file)
            if text is not None:
                known[file] = text
        if not known:
            raise ConfigError(f"{origin}: cannot read the included file {name}: No such file")
        if len(set(known.values())) > 1:
            raise ConfigError(
                f"{origin}: Include {name} may mean {' or '.join(map(str, known))}, by Slurm's"
                " release: write its whole path"
            )
        found, text = next(iter(known.items()))
        yield from self._lines(found, text, depth)

    def _read(self, path: Path) -> str | None:
        try:
            # Before it is read: a file that changes meanwhile has another stamp the next time.
            found = path.stat()
            self.stamps[str(path)] = FileStamp(found.st_mtime_ns, found.st_size, found.st_ino)
            return path.read_bytes().decode("utf-8", "surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            self.stamps[str(path)] = FileStamp()
            return None
        except OSError as exc:
            raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc


def lower_as_slurm(text: str) -> str:
    """Return the text with ASCII letters lowered, as Slurm does; others stay."""
    return "".join(one.lower() if one.isascii() else one for one in text)
