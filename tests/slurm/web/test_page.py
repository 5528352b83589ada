"""What a person sees in a browser while jobs of a real Slurm come and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from hosts.browser import Window, open_browser
from hosts.web_server import WebServer

from demo_cluster import ClusterSpec
from fake_nvml import start_gpu_process


@pytest.fixture(scope="module")
def cluster(make_cluster: Any) -> GpuCluster:
    return make_cluster(ClusterSpec(nodes=2, gpus_per_node=2), slurm={"assignment": "slurm"})


@pytest.fixture(scope="module")
def window(cluster: GpuCluster) -> Iterator[Window]:
    for node in ("n1", "n2"):
        cluster.health_check(node)
    variables = {
        "CANHAZGPU_CONFIG": str(cluster.config_file),
        "SLURM_CONF": cluster.slurm.env()["SLURM_CONF"],
    }
    settings = {"store.embedded_dir": str(cluster.root / "store")}
    with (
        WebServer("embedded", settings, variables=variables) as web,
        open_browser() as browser,
        Window(browser, web.address) as window,
    ):
        yield window


def test_a_job_appears_is_explained_and_goes(
    cluster: GpuCluster, window: Window, people: tuple[str, str]
) -> None:
    alice, _ = people
    page = window.open("/")
    window.wait_for_text(".big", "4 of 4 GPUs available")

    job = cluster.slurm.submit("sleep 600", "-wn1", "--gres=gpu:2", user=alice)
    window.wait_for_text(".big", "2 of 4 GPUs available")
    window.picture("slurm-job-runs")
    assert page.locator("tr.is-reserved").count() == 2
    page.get_by_role("link", name=str(job), exact=True).first.click()
    page.wait_for_url(f"**/jobs/{job}")
    window.wait_for_text("h1", f"job {job} of {alice}")
    window.wait_for_text(".timeline", "prolog of attempt 0: granted")
    assert page.locator(".spans li").count() == 2

    cluster.slurm.run(["scancel", str(job)])
    window.wait_for_text(".timeline", "epilog of attempt 0: released")
    window.picture("slurm-job-ended")
    page.get_by_role("link", name="Cluster").click()
    window.wait_for_text(".big", "4 of 4 GPUs available")
    cluster.slurm.wait_nodes_idle()
    assert window.faults == []


def test_use_without_a_reservation_needs_a_look(
    cluster: GpuCluster, window: Window, people: tuple[str, str]
) -> None:
    _, bob = people
    page = window.open("/?draw=tiles")
    window.wait_for_text(".big", "4 of 4 GPUs available")
    gpu = cluster.state.node("n2").gpus[0]
    with start_gpu_process(gpu, 8000, user=bob, name="python3"):
        cluster.health_check("n2")
        window.wait_for_text("#trouble", f"1 used without reservation by {bob}")
        assert page.locator("#n-n2 path.s-unreserved").count() == 1
        assert "troubled" in (page.locator("#n-n2 a").get_attribute("class") or "")
        window.picture("slurm-unreserved-use")
    cluster.health_check("n2")
    window.wait_for_text(".big", "4 of 4 GPUs available")
    assert page.locator("#trouble li").count() == 0
    assert window.faults == []
