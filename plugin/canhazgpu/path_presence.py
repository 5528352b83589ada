"""Whether a path exists, alike in every release of Python."""

from __future__ import annotations

from pathlib import Path


def may_exist(path: Path) -> bool:
    """Return False only where the system says that nothing is there.

    A path that this user cannot reach may exist: whoever reads it gets the system's reason. Path's
    own `exists` raises `PermissionError` for it up to Python 3.13, and returns False from 3.14 on.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False  # ValueError: no file's name contains a NUL
    except OSError:
        return True
    return True
