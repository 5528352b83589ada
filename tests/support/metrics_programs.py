"""Programs of Prometheus, from Debian's packages."""

from __future__ import annotations

import os
import shutil

import pytest


def need_program(name: str) -> str:
    """Return the program's path; without it, skip here and fail in CI."""
    found = shutil.which(name)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    assert found is not None
    return found
