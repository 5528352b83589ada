"""The task prolog under every shell that may be a node's /bin/sh."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugins.fast_set import first_and_variants

from .task_prolog import SHELLS, TaskProlog, shell_command


@pytest.fixture(params=first_and_variants(SHELLS))
def task_prolog(request: pytest.FixtureRequest) -> Iterator[TaskProlog]:
    shell = shell_command(request.param)
    # Not pytest's directory: an ordinary user has to reach the records, as on a node.
    directory = Path(tempfile.mkdtemp(prefix="task-prolog-"))
    directory.chmod(0o755)
    yield TaskProlog.at(directory, shell)
    shutil.rmtree(directory)
