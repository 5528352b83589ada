"""A plugin for pytest: how tests are spread over the workers of `pytest -n`.

Tests that boot a Slurm run in groups, those of a module together, so that they share a cluster. A
mark `parts(n)` cuts a long module into so many groups, and a mark `xdist_group` on a test or on a
parameter names its group. Tests marked `slow` run one by one on whichever worker is free, but for
those of a named group; all others a few of a module at a time: what a module shares is made on
fewer workers.

xdist's own `--dist loadgroup` knows no groups with pytest 9.2, and says nothing: it writes them
into an attribute that is not read any more.
"""

from __future__ import annotations

import gc
import json
import os
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from run_files import run_directory
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

GROUP_SIZE = 8
"""How many quick tests of a module a worker is given at a time."""
SHOWN_S = 0.005
"""``--durations`` shows what took as long as this."""


def pytest_configure(config: pytest.Config) -> None:
    # Before there are workers: they inherit the directory.
    run_directory()
    # The order is that of `pytest_collection_modifyitems`.
    config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling | None:
    return None if config.getvalue("dist") == "each" else GroupScheduling(config, log)


class GroupScheduling(LoadScopeScheduling):
    """Gives a worker the tests of a group together, in the order of the collection."""

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        super().add_node_collection(node, collection)
        if node in self.registered_collections:
            self.registered_collections[node] = CollectedIds(collection)

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid, nodeid)

    @cached_property
    def _groups(self) -> dict[str, str]:
        """What the workers have written, who all collect the same tests."""
        return dict(json.loads(groups_file().read_text()))

    def _pending_of(self, workload: dict[str, dict[str, bool]]) -> int:
        # It is asked after each test: what is done is not counted again each time.
        for group in [name for name, tests in workload.items() if all(tests.values())]:
            del workload[group]
        return super()._pending_of(workload)


class CollectedIds(list[str]):
    """The ids of tests; xdist asks for the place of each, and would search the list each time."""

    @cached_property
    def _places(self) -> dict[str, int]:
        return {nodeid: place for place, nodeid in enumerate(self)}

    def index(self, nodeid: str, *_: Any) -> int:
        return self._places[nodeid]


def groups_file() -> Path:
    return run_directory() / "groups.json"


@cache
def boots_slurm(item: pytest.Item) -> bool:
    return item.get_closest_marker("slurm") is not None


@cache
def is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    # Almost all that is made here stays; the collector would walk over it again and again.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What takes long is begun first.
    groups = groups_of(items)
    sizes = Counter(groups.values())

    def rank(item: pytest.Item) -> tuple[bool, bool, int]:
        size = sizes[groups[item.nodeid]] if boots_slurm(item) else 0
        return (not boots_slurm(item), not is_slow(item), -size)

    items.sort(key=rank)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    # Before xdist's own, which tells the scheduler that the worker is ready.
    draft = groups_file().with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(groups_of(session.items)))
    draft.replace(groups_file())
    # What is collected stays to the end: neither the collector nor forked children walk over it.
    # What little of it is garbage stays as well: to find it takes longer than most modules.
    gc.freeze()


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """In a worker, report no setup and no teardown of which nothing is shown.

    To send a report, and to take it, costs as much as most tests.
    """
    if not hasattr(item.config, "workerinput"):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        if report.when == "call" or not report.passed or report.duration >= SHOWN_S:
            item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def groups_of(items: Iterable[pytest.Item]) -> dict[str, str]:
    """Return the groups of tests by their ids; a test without one is a group of its own."""
    groups, modules = {}, defaultdict(list)
    for item in items:
        has_own_group = boots_slurm(item) or is_slow(item)
        if has_own_group and (mark := item.get_closest_marker("xdist_group")) is not None:
            groups[item.nodeid] = str(mark.args[0])
        elif boots_slurm(item) or not is_slow(item):
            modules[item.nodeid.partition("::")[0], boots_slurm(item)].append(item)
    for (name, on_slurm), members in modules.items():
        parts = parts_of(members) if on_slurm else -(-len(members) // GROUP_SIZE)
        for place, item in enumerate(members):
            groups[item.nodeid] = f"{name} {on_slurm} {parts * place // len(members)}"
    return groups


def parts_of(members: Iterable[pytest.Item]) -> int:
    marks = (item.get_closest_marker("parts") for item in members)
    return max((int(mark.args[0]) for mark in marks if mark is not None), default=1)
