"""The groups below which slurmd makes its jobs' groups, by what only root decides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from canhazgpu.errors import ConfigError
from canhazgpu.schedulers.slurm.attribution.slurmd_groups import (
    directory_of,
    find_slurmd_groups,
    parse_cgroup_mounts,
)

V2_HOST = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_HOST = "".join(
    f"3{number} 23 0:2{number} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"
    for number, name in enumerate(("freezer", "devices", "memory", "cpuset"))
)
SYSTEMD = "0::/init.scope\n"


class Host:
    """A /proc and the directory of slurm.conf."""

    def __init__(self, directory: Path) -> None:
        self.proc = directory / "proc"
        self.conf = directory / "etc/slurm.conf"
        for path in (self.proc / "self", self.proc / "1", self.conf.parent):
            path.mkdir(parents=True)

    def scopes(self, mountinfo: str = V2_HOST, init: str = SYSTEMD, cgroup: str = "") -> list[str]:
        """Return the scopes of node n1 that do not have the node's name."""
        found = self.groups(mountinfo, init, cgroup).v2
        assert [one.replace("/slurmstepd", "/n1_slurmstepd") for one in found[::2]] == list(
            found[1::2]
        )
        return list(found[::2])

    def groups(self, mountinfo: str = V2_HOST, init: str = SYSTEMD, cgroup: str = ""):  # type: ignore[no-untyped-def]
        (self.proc / "self/mountinfo").write_text(mountinfo)
        (self.proc / "1/cgroup").write_text(init)
        self.conf.with_name("cgroup.conf").write_text(cgroup)
        return find_slurmd_groups(self.conf, "n1", self.proc)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_host_with_systemd(host: Host) -> None:
    assert host.scopes() == ["/system.slice/slurmstepd.scope"]


def test_cgroup_slice(host: Host) -> None:
    assert host.scopes(cgroup="CgroupSlice=slurm.slice\n") == ["/slurm.slice/slurmstepd.scope"]
    # systemd puts a slice with dashes below those that its name begins with
    assert host.scopes(cgroup="cgroupslice=hpc-gpu.slice # ours\n") == [
        "/hpc-gpu.slice/slurmstepd.scope",
        "/hpc.slice/hpc-gpu.slice/slurmstepd.scope",
    ]


@pytest.mark.parametrize(
    ("mountinfo", "init", "wanted"),
    [
        # with a cgroup namespace of its own
        (V2_HOST, "0::/\n", ["/system.slice/slurmstepd.scope"]),
        # without one; systemd is the container's process 1
        (
            V2_HOST,
            "0::/docker.slice/docker-1.scope/init.scope\n",
            [
                "/system.slice/slurmstepd.scope",
                "/docker.slice/docker-1.scope/system.slice/slurmstepd.scope",
            ],
        ),
        # without one, and the container's group is mounted as the root
        (
            V2_HOST.replace(" / /sys", " /docker/1 /sys"),
            "0::/docker/1\n",
            ["/docker/1/system.slice/slurmstepd.scope"],
        ),
        (
            V2_HOST.replace(" / /sys", " /docker/1 /sys"),
            "0::/docker/1/init.scope\n",
            ["/docker/1/system.slice/slurmstepd.scope"],
        ),
    ],
)
def test_slurmd_in_a_container(host: Host, mountinfo: str, init: str, wanted: list[str]) -> None:
    assert host.scopes(mountinfo, init) == wanted


def test_v1_lies_where_the_mount_point_leads(host: Host, tmp_path: Path) -> None:
    def freezer(mountinfo: str = V1_HOST, cgroup: str = "") -> tuple[str, ...]:
        return host.groups(mountinfo, "0::/\n", cgroup).v1["freezer"]

    # Given the host's own mount point, and one whose entries lead elsewhere
    mount = tmp_path / "cgroup"
    mount.mkdir()
    (mount / "freezer").symlink_to("/sys/fs/cgroup/freezer/mine/deeper")
    (mount / "devices").symlink_to("/dev")

    # I expect the groups below it
    assert freezer() == ("/slurm", "/slurm_n1")
    assert set(host.groups(V1_HOST).v1) == {"freezer", "devices", "memory", "cpuset"}
    elsewhere = host.groups(V1_HOST, "0::/\n", f"CgroupMountpoint={mount}\n").v1
    assert elsewhere == {"freezer": ("/mine/deeper/slurm", "/mine/deeper/slurm_n1")}

    # If a container sees its own group as the root
    in_container = re.sub(r" / (/sys/fs/cgroup)", r" /docker/1 \1", V1_HOST)
    assert freezer(in_container) == ("/docker/1/slurm", "/docker/1/slurm_n1")


def test_nothing_of_a_process_is_asked(host: Host) -> None:
    # Given a /proc in which the groups of other processes cannot be read at all
    assert not (host.proc / "self/cgroup").exists()
    assert host.scopes() == ["/system.slice/slurmstepd.scope"]


def test_a_cgroup_conf_that_cannot_be_read_is_no_default(host: Host) -> None:
    host.groups()
    host.conf.with_name("cgroup.conf").unlink()
    host.conf.with_name("cgroup.conf").mkdir()
    with pytest.raises(ConfigError, match=r"cgroup\.conf"):
        find_slurmd_groups(host.conf, "n1", host.proc)


def test_blanks_in_a_mount_point() -> None:
    mounts = parse_cgroup_mounts(V2_HOST.replace("/sys/fs/cgroup", "/my\\040cgroup"))
    assert directory_of("/a/b", mounts) == Path("/my cgroup/a/b")
    assert directory_of("/a/b", ()) is None
