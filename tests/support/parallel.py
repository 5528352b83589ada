"""A plugin for pytest: how tests are spread over the workers of `pytest -n`.

Tests that boot a Slurm run in groups, those of a module together, so that they share a cluster. A
mark `xdist_group` on a test or on a parameter makes smaller groups. All others run one by one on
whichever worker is free. What takes long is begun first.
"""

from __future__ import annotations

import pytest
from run_files import run_directory


def pytest_configure() -> None:
    # Before there are workers: they inherit the directory.
    run_directory()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if boots_slurm(item) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: (not boots_slurm(item), item.get_closest_marker("slow") is None))


def boots_slurm(item: pytest.Item) -> bool:
    return item.get_closest_marker("slurm") is not None
