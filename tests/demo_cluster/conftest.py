"""Directories for private clusters, and users whose jobs they run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo_cluster import ensure_users, missing_requirements, new_directory, remove_users


@dataclass(frozen=True, slots=True)
class People:
    alice: str
    bob: str


@pytest.fixture(autouse=True)
def _need_slurm(request: pytest.FixtureRequest) -> None:
    missing = missing_requirements() if request.node.get_closest_marker("slurm") else ()
    if not missing:
        return
    message = f"a private Slurm needs {', '.join(missing)}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def directory() -> Iterator[Path]:
    path = new_directory()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    # Names of this run alone: two runs on one machine do not remove each other's users.
    people = People(alice=f"demo-alice{os.getpid()}", bob=f"demo-bob{os.getpid()}")
    created = ensure_users([people.alice, people.bob])
    yield people
    remove_users(created)
