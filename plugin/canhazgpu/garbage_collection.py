"""Keep Python's garbage collector from searching what is still needed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Do not search for garbage in cycles inside the block.

    It is for making very many objects that are all kept: the collector looks through all of them
    again and again, which takes as long as making them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
