"""Cutting the unreadable end off the embedded server's file after a power loss.

A server reads over a command that was written in part (``aof-load-truncated``), and refuses a file
whose end is zeros or old blocks, which is what a file system may leave of the last second before
the power went. Everything up to there is good.
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
    """Cut the newest data file where it stops making sense, if `log` says that it does.

    The file as it was is kept beside the server's files. Returns whether anything was cut.
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
    """Return how many bytes from the start are whole commands."""
    end = 0
    while (after := _command_end(data, end)) is not None:
        end = after
    return end


def _command_end(data: bytes, start: int) -> int | None:
    """Return where the command at `start` ends; None when there is no whole one."""
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
    """Return the last file of commands in the manifest: ``file NAME seq 3 type i``."""
    manifest: Path = directory.path / _DATA_DIRECTORY / _MANIFEST
    names = re.findall(r"^file (\S+) seq \d+ type i\b", manifest.read_text("utf-8"), re.MULTILINE)
    return names[-1] if names else None
