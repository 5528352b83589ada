"""A plugin for pytest: how tests are spread over the workers of `pytest -n`.

Tests that boot a Slurm run in groups, those of a module together, so that they share a cluster. A
mark `parts(n)` cuts a long module into so many groups, and a mark `xdist_group` on a test or on a
parameter names its group. All others run one by one on whichever worker is free.

xdist's own `--dist loadgroup` knows no groups with pytest 9.2, and says nothing: it writes them
into an attribute that is not read any more.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from run_files import run_directory
from xdist.scheduler import LoadScopeScheduling


def pytest_configure() -> None:
    # Before there are workers: they inherit the directory.
    run_directory()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling | None:
    return None if config.getvalue("dist") == "each" else GroupScheduling(config, log)


class GroupScheduling(LoadScopeScheduling):
    """Gives a worker the tests of a group together; the largest groups first."""

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid, nodeid)

    @cached_property
    def _groups(self) -> dict[str, str]:
        """What the workers have written, who all collect the same tests."""
        return dict(json.loads(groups_file().read_text()))


def groups_file() -> Path:
    return run_directory() / "groups.json"


def boots_slurm(item: pytest.Item) -> bool:
    return item.get_closest_marker("slurm") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    # Before xdist's own, which tells the scheduler that the worker is ready.
    groups = groups_of([item for item in session.items if boots_slurm(item)])
    draft = groups_file().with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(groups))
    draft.replace(groups_file())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What takes long is begun first.
    items.sort(key=lambda item: (not boots_slurm(item), item.get_closest_marker("slow") is None))


def groups_of(items: Iterable[pytest.Item]) -> dict[str, str]:
    """Return each test's group by its id."""
    groups, modules = {}, defaultdict(list)
    for item in items:
        if (mark := item.get_closest_marker("xdist_group")) is None:
            modules[item.nodeid.partition("::")[0]].append(item)
        else:
            groups[item.nodeid] = str(mark.args[0])
    for name, members in modules.items():
        for place, item in enumerate(members):
            part = parts_of(members) * place // len(members)
            groups[item.nodeid] = f"{name} {part}"
    return groups


def parts_of(members: Iterable[pytest.Item]) -> int:
    marks = (item.get_closest_marker("parts") for item in members)
    return max((int(mark.args[0]) for mark in marks if mark is not None), default=1)
