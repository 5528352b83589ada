r"""Parse Slurm's configuration files.

A line holds ``Key=Value`` pairs, keys in any case. ``#`` begins a comment, ``\`` at the end of a
line continues it, and ``Include FILE`` includes another file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.errors import ConfigError

MAX_INCLUDES = 5
ConfPairs = dict[str, str]
_PAIR = re.compile(r"""([A-Za-z0-9_]+)\s*=\s*("[^"]*"|\S+)""")


def parse_line(text: str) -> ConfPairs:
    """Return the pairs of one line, keys in lower case."""
    return {key.lower(): value.strip('"') for key, value in _PAIR.findall(_uncommented(text))}


def _uncommented(text: str) -> str:
    return re.sub(r"(?<!\\)#.*", "", text)


def read_conf_lines(path: Path, depth: int = 0) -> Iterator[ConfPairs]:
    """Read a file and the files it includes. Raises `ConfigError` for one that cannot be read.

    An absent file counts as empty.
    """
    try:
        text = path.read_text("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    for line in text.replace("\\\n", "").splitlines():
        include = re.fullmatch(r"\s*include\s+(\S+)\s*", _uncommented(line), re.IGNORECASE)
        if include and depth < MAX_INCLUDES:
            yield from read_conf_lines(path.parent / include[1], depth + 1)
        elif pairs := parse_line(line):
            yield pairs
