from __future__ import annotations

from pathlib import Path

import pytest

from demo_cluster import ClusterSpec, Layout
from demo_cluster.config_files import Endpoints, cgroup_conf, gres_conf, slurm_conf

LAYOUT = Layout(Path("/tmp/here"))
ENDPOINTS = Endpoints("host", 20001, (20002, 20003))


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if " " not in line)


def test_every_node_has_devices_of_its_own() -> None:
    text = gres_conf(ClusterSpec(nodes=2, gpus_per_node=2), LAYOUT)

    assert text.splitlines() == [
        "AutoDetect=off",
        "NodeName=n1 Name=gpu File=/tmp/here/dev/n1/nvidia100",
        "NodeName=n1 Name=gpu File=/tmp/here/dev/n1/nvidia101",
        "NodeName=n2 Name=gpu File=/tmp/here/dev/n2/nvidia102",
        "NodeName=n2 Name=gpu File=/tmp/here/dev/n2/nvidia103",
    ]


def test_minors_may_be_chosen_in_any_order() -> None:
    spec = ClusterSpec(nodes=1, minors=((7, 3),))

    assert [line.rpartition("/")[2] for line in gres_conf(spec, LAYOUT).splitlines()[1:]] == [
        "nvidia7",
        "nvidia3",
    ]
    assert "Gres=gpu:2" in slurm_conf(spec, LAYOUT, Endpoints("host", 1, (2,)))


def test_a_gpu_may_have_several_files() -> None:
    files = (("nvidia7",), ("nvidia3", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"))
    spec = ClusterSpec(nodes=1, minors=((7, 3),), gpu_files=files, gpu_types=("a100", "1g.5gb"))

    devices = "/tmp/here/dev/n1"
    assert gres_conf(spec, LAYOUT).splitlines()[1:] == [
        f"NodeName=n1 Name=gpu Type=a100 File={devices}/nvidia7",
        f"NodeName=n1 Name=gpu Type=1g.5gb MultipleFiles={devices}/nvidia3,"
        f"{devices}/nvidia-caps/nvidia-cap12,{devices}/nvidia-caps/nvidia-cap13",
    ]
    text = slurm_conf(spec, LAYOUT, Endpoints("host", 1, (2,)))
    assert "Gres=gpu:1g.5gb:1,gpu:a100:1" in text


def test_minors_for_another_number_of_nodes_are_refused() -> None:
    with pytest.raises(ValueError, match="minors are given for 1 nodes of 2"):
        ClusterSpec(nodes=2, minors=((0, 1),))


def test_each_slurmd_listens_on_its_own_port() -> None:
    text = slurm_conf(ClusterSpec(), LAYOUT, ENDPOINTS)

    assert "NodeName=n1 NodeHostname=host NodeAddr=127.0.0.1 Port=20002" in text
    assert "NodeName=n2 NodeHostname=host NodeAddr=127.0.0.1 Port=20003" in text


def test_constrained_devices_bring_the_cgroup_plugins() -> None:
    free = settings(slurm_conf(ClusterSpec(), LAYOUT, ENDPOINTS))
    bound = settings(slurm_conf(ClusterSpec(constrain_devices=True), LAYOUT, ENDPOINTS))

    assert (free["ProctrackType"], free["TaskPlugin"]) == ("proctrack/linuxproc", "task/none")
    assert (bound["ProctrackType"], bound["TaskPlugin"]) == ("proctrack/cgroup", "task/cgroup")


def test_cgroup_v1_is_given_a_mount_point_in_the_cluster_directory() -> None:
    conf = settings(cgroup_conf(ClusterSpec(constrain_devices=True), LAYOUT, "cgroup/v1"))

    assert conf["CgroupMountpoint"] == "/tmp/here/cgroup"
    assert conf["ConstrainDevices"] == "yes"


def test_hooks_appear_only_when_they_are_given() -> None:
    without = settings(slurm_conf(ClusterSpec(), LAYOUT, ENDPOINTS))
    with_prolog = settings(slurm_conf(ClusterSpec(prolog="/opt/p.sh"), LAYOUT, ENDPOINTS))

    assert not {"Prolog", "Epilog", "TaskProlog", "HealthCheckProgram"} & without.keys()
    assert with_prolog["Prolog"] == "/opt/p.sh"


@pytest.mark.parametrize("wanted", [True, False])
def test_jobs_are_held_after_a_failed_prolog_only_when_asked_for(wanted: bool) -> None:
    text = slurm_conf(ClusterSpec(nohold_on_prolog_fail=wanted), LAYOUT, ENDPOINTS)

    assert ("nohold_on_prolog_fail" in text) is wanted


def test_extra_lines_come_last() -> None:
    text = slurm_conf(ClusterSpec(slurm_conf_extra="DebugFlags=Gres\n"), LAYOUT, ENDPOINTS)

    assert text.endswith("\nDebugFlags=Gres\n")
