"""Clusters that the tests of a module share: one for each way Slurm can be set up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster, installed_venv

from demo_cluster import (
    ClusterSpec,
    ensure_users,
    missing_requirements,
    new_directory,
    remove_users,
)

# Names of this run alone: two runs on one machine do not remove each other's users.
USERS = (f"cgalice{os.getpid()}", f"cgbob{os.getpid()}")

# The way of hooks on clusters whose module names none: by themselves, or through an agent.
DEFAULT_WAY = os.environ.get("HOOKS_THROUGH", "direct")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = f"{Path(__file__).parent}/"
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def venv() -> Path:
    missing = missing_requirements()
    if missing:
        pytest.skip(f"a private Slurm needs {', '.join(missing)}")
    return installed_venv()


@pytest.fixture(scope="session")
def people() -> Iterator[tuple[str, str]]:
    created = ensure_users(list(USERS))
    yield USERS
    remove_users(created)


@pytest.fixture(scope="module")
def make_cluster(venv: Path, people: tuple[str, str]) -> Iterator[Any]:
    clusters: list[GpuCluster] = []

    def make(
        spec: ClusterSpec | None = None, *, way: str = DEFAULT_WAY, **config: dict[str, Any]
    ) -> GpuCluster:
        cluster = GpuCluster(
            new_directory(), venv, spec or ClusterSpec(), config, has_agents=way == "agent"
        )
        clusters.append(cluster)
        cluster.slurm.start()
        return cluster

    yield make
    for cluster in clusters:
        cluster.stop()
        shutil.rmtree(cluster.root)


@pytest.fixture(autouse=True)
def _agents_answered(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where the test's cluster has agents, they did the work of all hooks that ran."""
    yield
    cluster = request.node.funcargs.get("cluster")
    if isinstance(cluster, GpuCluster) and cluster.agents is not None:
        has_timer = bool(cluster.slurm.spec.health_check_interval_s)
        for node in cluster.slurm.spec.node_names():
            cluster.agents.assert_all_answered(node, has_timer=has_timer)
