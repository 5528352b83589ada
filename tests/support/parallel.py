"""A plugin for pytest: how tests are spread over the workers of `pytest -n`.

Tests that boot a Slurm run in groups, those of a module together, so that they share a cluster. A
mark `parts(n)` cuts a long module into so many groups, and a mark `xdist_group` on a test or on a
parameter names its group. All others run one by one on whichever worker is free.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pytest
from run_files import run_directory


def pytest_configure() -> None:
    # Before there are workers: they inherit the directory.
    run_directory()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    modules = defaultdict(list)
    for item in items:
        if boots_slurm(item) and item.get_closest_marker("xdist_group") is None:
            modules[item.path.stem].append(item)
    for name, members in modules.items():
        for place, item in enumerate(members):
            part = parts_of(members) * place // len(members)
            item.add_marker(pytest.mark.xdist_group(f"{name} {part + 1}"))
    # What takes long is begun first.
    items.sort(key=lambda item: (not boots_slurm(item), item.get_closest_marker("slow") is None))


def boots_slurm(item: pytest.Item) -> bool:
    return item.get_closest_marker("slurm") is not None


def parts_of(members: Iterable[pytest.Item]) -> int:
    marks = (item.get_closest_marker("parts") for item in members)
    return max((int(mark.args[0]) for mark in marks if mark is not None), default=1)
