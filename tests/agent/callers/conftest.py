"""Files of accounts of a node's own, and a place for sockets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWD = """root:x:0:0:root:/root:/bin/sh
ann:x:4001:4001::/:/bin/sh
anna:x:4001:4001:the same:/:/bin/sh
bob:x:4002:4002::/:/bin/sh
+nis
broken:x:many:1::/:/bin/sh
"""
GROUP = "staff:x:4100:\ngpus:x:4200:ann\n"
SUBUID = """ann:4100000000:65536
4002:4100065536:65536
root:4100200000:65536
nobody-there:4100300000:10
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A directory with passwd, group and subuid."""
    for name, text in (("passwd", PASSWD), ("group", GROUP), ("subuid", SUBUID)):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "socket"
