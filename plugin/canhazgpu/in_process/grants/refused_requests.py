"""How many requests of people a node has refused, and why: for its metrics.

Whoever refuses adds a word to a file, which takes no lock and waits for nobody. Who writes the
metrics takes the file away, and reads it one writing later: then nobody adds to it any more.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path

from canhazgpu.node.state_files import open_regular_file, read_if_owned

METRICS_DIRECTORY = "metrics"
"""Below the node's own directory; there is none where the site has no metrics."""
OVER_LIMIT = "limit"
"""The cause where the site's limits refused a request; the others are a `RefusalKind`'s."""
FILE = "refused-requests"
TAKEN = "refused-requests.taken"
MAX_BYTES = 1 << 20
"""Of the file: the metrics may be switched off, or written by nobody."""


def note_refused(state_dir: Path, cause: str) -> None:
    """Note one refusal; nothing where the site has no metrics, or this user may not write them."""
    path = state_dir / METRICS_DIRECTORY / FILE
    with contextlib.suppress(OSError):
        if not path.parent.is_dir():
            return
        descriptor = open_regular_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            if os.fstat(descriptor).st_size < MAX_BYTES:
                os.write(descriptor, f"{cause}\n".encode())
        finally:
            os.close(descriptor)


def take_refused(directory: Path) -> Counter[str]:
    """Return how many were noted, by cause, up to the last call; counts none twice."""
    content = b""
    with contextlib.suppress(OSError):
        content = read_if_owned(directory / TAKEN) or b""
    with contextlib.suppress(OSError):
        (directory / TAKEN).unlink()
    with contextlib.suppress(OSError):
        (directory / FILE).replace(directory / TAKEN)
    return Counter(content.decode("ascii", "replace").split())
