"""Python on a machine of its own as far as files go: garbage may name any path.

Nothing is written there but below the test's own directory, `/dev/shm` and `/tmp`; `/run`,
`/var/lib` and `/etc` are empty.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forking_python import ForkingPython

EMPTY = ("/run", "/var/lib")
PROGRAM = """#!/bin/sh
exec unshare --mount --propagation private /bin/sh -c '
mount --bind "$0" "$0"
for one in {empty}; do mount -t tmpfs none "$one"; done
mount -o remount,bind,ro /
exec "{python}" "$@"
' "{directory}" "$@"
"""


@contextmanager
def private_python(directory: Path) -> Iterator[ForkingPython]:
    """An interpreter with such files, where the directory is one of those that are kept."""
    program = directory / "private-python"
    program.write_text(
        PROGRAM.format(empty=" ".join(EMPTY), python=sys.executable, directory=directory)
    )
    program.chmod(0o755)
    with ForkingPython(program) as python:
        yield python
