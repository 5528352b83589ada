"""Truncate the damaged end of the embedded server's append-only file (AOF) after a power loss.

The server itself accepts a file that ends within a command (``aof-load-truncated``). It refuses a
file that ends in zeros or old blocks. A file system may leave such an end after a power loss; the
commands before it are intact.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from canhazgpu.ledger.embedded.directory import ServerDirectory

_DATA_DIRECTORY = "appendonlydir"
_MANIFEST = "appendonly.aof.manifest"
_BAD_FORMAT_MESSAGE = re.compile(r"Bad file format reading the append only file (\S+\.incr\.aof)\b")
_COUNT = re.compile(rb"\*([0-9]{1,9})\r\n")
_LENGTH = re.compile(rb"\$([0-9]{1,9})\r\n")
_ANNOTATION = re.compile(rb"#[^\r\n]*\r\n")


def truncate_damaged_tail(directory: ServerDirectory, log: str) -> bool:
    """Truncate the newest data file after its last whole command, if `log` reports bad format.

    A copy of the damaged file is kept in the directory. Returns whether the file was truncated.
    """
    complaint = _BAD_FORMAT_MESSAGE.search(log)
    if complaint is None or complaint.group(1) != _newest_file(directory):
        return False
    path = directory.path / _DATA_DIRECTORY / complaint.group(1)
    data = path.read_bytes()
    good = readable_length(data)
    if good == len(data):
        return False
    copy = directory.path / f"damaged-{path.name}"
    shutil.copy2(path, copy)
    with path.open("r+b") as file:
        file.truncate(good)
    with directory.log.open("a", encoding="utf-8") as file:
        file.write(f"canhazgpu: cut {len(data) - good} bytes off {path.name}; see {copy.name}\n")
    return True


def readable_length(data: bytes) -> int:
    """Return the length of the part of `data` that consists of whole commands."""
    end = 0
    while (after := _command_end(data, end)) is not None:
        end = after
    return end


def _command_end(data: bytes, start: int) -> int | None:
    """Return the end of the command that begins at `start`; None if it is not whole."""
    annotation = _ANNOTATION.match(data, start)
    if annotation:
        return annotation.end()
    count = _COUNT.match(data, start)
    if not count:
        return None
    end = count.end()
    for _ in range(int(count.group(1))):
        length = _LENGTH.match(data, end)
        if not length:
            return None
        end = length.end() + int(length.group(1)) + 2
        if data[end - 2 : end] != b"\r\n":
            return None
    return end


def _newest_file(directory: ServerDirectory) -> str | None:
    """Return the last incremental file of the manifest: ``file NAME seq 3 type i``."""
    manifest: Path = directory.path / _DATA_DIRECTORY / _MANIFEST
    names = re.findall(r"^file (\S+) seq \d+ type i\b", manifest.read_text("utf-8"), re.MULTILINE)
    return names[-1] if names else None
