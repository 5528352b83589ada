"""Slurm's lists, files and numbers, read without a Slurm."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from canhazgpu.errors import ConfigError, InputError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm import environment
from canhazgpu.schedulers.slurm.conf.declared_gpus import (
    DeclaredGpus,
    node_line,
    parse_count,
    parse_declared_gpus,
)
from canhazgpu.schedulers.slurm.conf.device_mapping import gpus_at_positions
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.hostlist import MAX_NAMES, expand_hostlist
from canhazgpu.schedulers.slurm.conf.node_conf import (
    SlurmNodeConf,
    default_conf_path,
    read_node_conf,
)
from canhazgpu.schedulers.slurm.conf.parser import ConfLine, parse_line, parse_pairs


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("n1", ("n1",)),
        ("n1,n2", ("n1", "n2")),
        ("n[1-3,7],login", ("n1", "n2", "n3", "n7", "login")),
        ("n[08-11]", ("n08", "n09", "n10", "n11")),
        ("n[3,1]", ("n3", "n1")),
        ("r[1-2]n[1-2]", ("r1n1", "r1n2", "r2n1", "r2n2")),
        ("n[1-2]-ib", ("n1-ib", "n2-ib")),
        ("n[5]", ("n5",)),
        ("/dev/nvidia[0-2]", ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2")),
        ("a,", ("a",)),
        ("a,,b", ("a", "b")),
        # Values in quotes may have blanks, and Slurm takes these for commas.
        (" a, b\tn[1-2]\n", ("a", "b", "n1", "n2")),
        ("n[2023010001-2023010002]", ("n2023010001", "n2023010002")),
    ],
)
def test_a_list_is_expanded_in_order(text: str, names: tuple[str, ...]) -> None:
    assert expand_hostlist(text) == names


@pytest.mark.parametrize(
    "text",
    [
        "n[",
        "n]",
        "n[1-",
        "n[]",
        "n[-1]",
        "n[1--2]",
        "n[1-2-3]",
        "n[a-b]",
        "n[1,,2]",
        "n[1,]",
        "n[[1]]",
        "n[3-1]",
        "n[0-7:2]",
        "n[1, 2]",
        "n[1-999999999]",
        "n[1-9999999999]",
        "n[1-60000][1-60000]",
        "n[" + ",".join(["1-60000"] * 1000) + "]",
        ",".join(["n[1-60000]"] * 1000),
        "[" * 10000,
        "[1]" * 20000 + "[",
    ],
)
def test_a_malformed_or_hostile_list_is_refused_at_once(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        expand_hostlist(text)
    assert len(str(caught.value)) < 250
    assert time.monotonic() - began < 5


def test_the_longest_list_is_accepted() -> None:
    assert len(expand_hostlist(f"n[1-{MAX_NAMES}]")) == MAX_NAMES


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("# a comment", {}),
        ("", {}),
        ("SlurmdLogFile=/a # b=c", {"slurmdlogfile": "/a"}),
        (
            'Name="gpu"  Type = a100\tFILE="/dev/x y"',
            {"name": "gpu", "type": "a100", "file": "/dev/x y"},
        ),
        ("nodename=n[1-2] NAME=gpu", {"nodename": "n[1-2]", "name": "gpu"}),
        ("Include other.conf", {}),
    ],
)
def test_a_line_is_pairs_with_keys_in_any_case(text: str, pairs: dict[str, str]) -> None:
    assert parse_line(text) == pairs


def devices(*files: str, kind: str = "") -> tuple[GpuDevice, ...]:
    return tuple(GpuDevice(kind, (file,)) for file in files)


def facts(directory: Path, slurm: str = "", cgroup: str = "", gres: str = "") -> SlurmNodeConf:
    for name, text in (("slurm.conf", slurm), ("cgroup.conf", cgroup), ("gres.conf", gres)):
        if text:
            (directory / name).write_text(text)
    return read_node_conf(directory / "slurm.conf", "n2", "host2")


def test_absent_files_count_as_empty(tmp_path: Path) -> None:
    found = facts(tmp_path)
    assert (found.constrains_devices, found.gpu_devices, found.log_file) == (False, (), None)


@pytest.mark.parametrize(
    ("slurm", "cgroup", "constrained"),
    [
        ("TaskPlugin=task/cgroup", "ConstrainDevices=yes", True),
        ("taskplugin=task/affinity,task/cgroup", "constraindevices = YES", True),
        ("TaskPlugin=Task/Cgroup", "ConstrainDevices=true", True),
        ("TaskPlugin=affinity,cgroup", "ConstrainDevices=yes", True),
        ("TaskPlugin=cgroup", "ConstrainDevices=up", True),
        ('TaskPlugin="task/affinity, cgroup"', "ConstrainDevices=yes", True),
        ("TaskPlugin=task/cgroupish", "ConstrainDevices=yes", False),
        ("TaskPlugin=task/cgroup", "ConstrainDevices=1", True),
        ("TaskPlugin=task/\\\ncgroup", "ConstrainDevices=\\\nyes", True),
        ("TaskPlugin=task/affinity", "ConstrainDevices=yes", False),
        ("TaskPlugin=task/none", "ConstrainDevices=yes", False),
        ("TaskPlugin=none,affinity", "ConstrainDevices=yes", False),
        ("TaskPlugin=none,cgroup", "ConstrainDevices=no", False),
        ("TaskPlugin=none,cgroup\nTaskPlugin=cgroup", "ConstrainDevices=yes", True),
        ("", "ConstrainDevices=yes", False),
        ("TaskPlugin=task/cgroup", "ConstrainDevices=no", False),
        ("TaskPlugin=task/cgroup", "# ConstrainDevices=yes", False),
        ("TaskPlugin=task/cgroup", "", False),
        ("#TaskPlugin=task/cgroup\nProctrackType=proctrack/cgroup", "ConstrainDevices=yes", False),
    ],
)
def test_devices_are_constrained_only_by_the_cgroup_task_plugin(
    tmp_path: Path, slurm: str, cgroup: str, constrained: bool
) -> None:
    assert facts(tmp_path, slurm, cgroup).constrains_devices is constrained


@pytest.mark.parametrize("value", ["task/none,task/cgroup", "cgroup,NONE", "affinity,cgroup,none"])
def test_plugins_beside_none_are_refused_where_releases_differ(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"slurm.conf line 2: TaskPlugin=.*remove none"):
        facts(tmp_path, f"ClusterName=c\nTaskPlugin={value}", "ConstrainDevices=yes")


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("SlurmdLogFile=/var/log/slurm/%n-%h.log", Path("/var/log/slurm/n2-host2.log")),
        ('SlurmdLogFile="/var/log/slurmd.log"', Path("/var/log/slurmd.log")),
        ("SlurmdLogFile=slurmd.log", None),
        ("SlurmctldLogFile=/var/log/ctld.log", None),
    ],
)
def test_slurmds_log(tmp_path: Path, line: str, path: Path | None) -> None:
    assert facts(tmp_path, line).log_file == path


@pytest.mark.parametrize(
    ("gres", "files"),
    [
        ("Name=gpu File=/dev/nvidia[0-1]", ("/dev/nvidia0", "/dev/nvidia1")),
        (
            "Name=gpu File=/dev/nvidia1\nName=gpu File=/dev/nvidia0",
            ("/dev/nvidia1", "/dev/nvidia0"),
        ),
        ("NAME=GPU FILE=/dev/nvidia3", ("/dev/nvidia3",)),
        ("Name=gpu \\\n  File=/dev/nvidia3", ("/dev/nvidia3",)),
        (
            "NodeName=n[1-2] Name=gpu File=/dev/nvidia0\nNodeName=n3 Name=gpu File=/dev/nvidia1",
            ("/dev/nvidia0",),
        ),
        ("NodeName=n1 Name=gpu File=/dev/nvidia0", ()),
        ("NodeName=n20 Name=gpu File=/dev/nvidia0", ()),
        ("AutoDetect=nvml", ()),
        ("Name=mps File=/dev/nvidia0", ()),
        ("#Name=gpu File=/dev/nvidia0", ()),
        ("Name=gpu Count=4", ()),
        ("", ()),
    ],
)
def test_the_gpus_files_of_this_node(tmp_path: Path, gres: str, files: tuple[str, ...]) -> None:
    assert facts(tmp_path, gres=gres).gpu_devices == devices(*files)


def test_a_list_that_cannot_be_read_fails_only_where_it_is_needed(tmp_path: Path) -> None:
    found = facts(tmp_path, "SlurmdLogFile=/l", gres="Name=gpu File=/dev/nvidia[0-7:2]")
    assert found.log_file == Path("/l")
    with pytest.raises(InputError, match="nvidia"):
        _ = found.gpu_devices


def test_files_include_others_beside_them_or_anywhere(tmp_path: Path) -> None:
    (tmp_path / "task.conf").write_text("TaskPlugin=task/cgroup\n")
    (tmp_path / "log.conf").write_text("SlurmdLogFile=/l\n")
    slurm = f"include task.conf # why\nInclude {tmp_path}/log.conf\n"
    found = facts(tmp_path, slurm, "ConstrainDevices=yes")
    assert (found.constrains_devices, found.log_file) == (True, Path("/l"))


def test_the_absolute_include_of_an_image_is_in_the_image(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "log.conf").write_text("SlurmdLogFile=/l\n")
    (tmp_path / "etc" / "slurm.conf").write_text("Include /etc/log.conf\n")
    found = read_node_conf(tmp_path / "etc" / "slurm.conf", "", "", tmp_path)
    assert found.log_file == Path("/l")


def test_an_include_names_the_cluster(tmp_path: Path) -> None:
    (tmp_path / "gres_mars.conf").write_text("Name=gpu File=/dev/nvidia3\n")
    (tmp_path / "mars.conf").write_text("SlurmdLogFile=/l\n")
    found = facts(tmp_path, "ClusterName=Mars\nInclude %c.conf\n", gres="Include gres_%c.conf\n")
    assert found.log_file == Path("/l")
    # slurmd knows the name in slurm.conf alone, and does not start with this gres.conf.
    assert found.gpu_devices == devices("/dev/nvidia3")


@pytest.mark.parametrize(
    ("slurm", "fault"),
    [
        (
            "\nInclude absent.conf\n",
            r"slurm.conf line 2: cannot read the included file absent.conf",
        ),
        ("Include %c.conf\nClusterName=a\n", r"line 1: Include %c.conf needs ClusterName="),
        (" Include nodes.conf\n", r"line 1: Include is not the first word of its line"),
        ("Include slurm.conf\n", r"line 1: more than 16 files include each other"),
        ("Include *.conf\n", r"line 1: cannot read the included file"),
    ],
)
def test_an_include_without_effect_is_no_empty_file(tmp_path: Path, slurm: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        facts(tmp_path, slurm)


def test_a_relative_include_in_a_folder_is_beside_either_file(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "all.conf").write_text("Include log.conf\n")
    (tmp_path / "log.conf").write_text("SlurmdLogFile=/beside-slurm-conf\n")
    slurm = "Include conf.d/all.conf\n"
    assert facts(tmp_path, slurm).log_file == Path("/beside-slurm-conf")
    (tmp_path / "conf.d" / "log.conf").write_text("SlurmdLogFile=/beside-the-line\n")
    with pytest.raises(ConfigError, match=r"all.conf line 1: Include log.conf may mean"):
        facts(tmp_path, slurm)
    (tmp_path / "log.conf").unlink()
    assert facts(tmp_path, slurm).log_file == Path("/beside-the-line")


def test_every_file_that_was_looked_for_has_a_stamp(tmp_path: Path) -> None:
    (tmp_path / "log.conf").write_text("SlurmdLogFile=/l\n")
    before = facts(tmp_path, "Include log.conf\n").stamps
    assert {Path(name).name for name in before} == {
        "slurm.conf",
        "log.conf",
        "cgroup.conf",
        "gres.conf",
    }
    (tmp_path / "gres.conf").write_text("Name=gpu File=/dev/nvidia0\n")
    after = facts(tmp_path).stamps
    assert [Path(name).name for name in before if before[name] != after[name]] == ["gres.conf"]


def test_bytes_that_are_no_text_are_read_over(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_bytes(b"\xff\xfe=\x00\nSlurmdLogFile=/l\n")
    assert facts(tmp_path).log_file == Path("/l")


def gpu(index: int, number: int | None, uuid: str | None = None) -> GpuReading:
    return GpuReading(index, f"GPU-{index}" if uuid is None else uuid, number, "H100", 0, 80000)


# Index, device number and Slurm's place all differ.
NODE = [gpu(0, 2), gpu(1, 0), gpu(2, 5), gpu(3, 1)]


def test_a_position_leads_over_the_device_file_to_the_gpu() -> None:
    files = devices("/dev/nvidia5", "/dev/nvidia1", "/dev/nvidia0", "/dev/nvidia2")
    assert gpus_at_positions([1, 0], files, NODE) == (
        AssignedGpu(1, "GPU-3", 3, "/dev/nvidia1"),
        AssignedGpu(0, "GPU-2", 2, "/dev/nvidia5"),
    )


@pytest.mark.parametrize(
    ("position", "files", "text"),
    [
        (0, [], "Slurm gave GPU 0, but by slurm.conf and gres.conf this node has files for 0"),
        (1, ["/dev/nvidia0"], "Slurm gave GPU 1, but by slurm.conf and gres.conf .* for 1 GPUs"),
        (0, ["/dev/nvidia7"], r"Slurm gave GPU 0 \(/dev/nvidia7\), which the driver does not"),
        (0, ["/dev/nvidia"], r"Slurm gave GPU 0 \(/dev/nvidia\), which the driver does not"),
    ],
)
def test_a_position_without_a_gpu_is_refused(position: int, files: list[str], text: str) -> None:
    with pytest.raises(InputError, match=text):
        gpus_at_positions([position], devices(*files), NODE)


def test_a_gpu_without_a_name_is_not_assigned() -> None:
    with pytest.raises(InputError, match="does not show"):
        gpus_at_positions([0], devices("/dev/nvidia0"), [gpu(0, 0, "")])


@pytest.mark.parametrize(
    ("gres", "declared"),
    [
        ("", ()),
        ("nic:1,gpumem:2", ()),
        ("gpu", (DeclaredGpus("", 1),)),
        ("gpu:4", (DeclaredGpus("", 4),)),
        ("gpu:a100", (DeclaredGpus("a100", 1),)),
        (
            "gpu:3090:2,nic:1,gpu:2080ti:2(S:0)",
            (DeclaredGpus("3090", 2), DeclaredGpus("2080ti", 2)),
        ),
        ("gpu:a:1,gpu:b:1,gpu:a:2", (DeclaredGpus("a", 3), DeclaredGpus("b", 1))),
        ("gpu:2(S:0-1,2)", (DeclaredGpus("", 2),)),
    ],
)
def test_what_slurm_conf_says_of_a_nodes_gpus(
    gres: str, declared: tuple[DeclaredGpus, ...]
) -> None:
    assert parse_declared_gpus(gres) == declared


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2", 2),
        ("1k", 1024),
        ("1KiB", 1024),
        ("1kb", 1000),
        ("2M", 2 * 1024**2),
        ("1b", None),
        ("2x", None),
        ("", None),
        ("-1", None),
    ],
)
def test_counts_have_suffixes(text: str, count: int | None) -> None:
    assert parse_count(text) == count


def lines_of(*texts: str) -> list[ConfLine]:
    return [
        ConfLine(*parse_pairs(text), "/etc/slurm.conf", number)
        for number, text in enumerate(texts, start=1)
    ]


@pytest.mark.parametrize(
    ("lines", "gres"),
    [
        ([], None),
        (["NodeName=n2 Gres=gpu:1"], None),
        (["NodeName=n1"], ""),
        (["NodeName=DEFAULT Gres=gpu:8", "NodeName=n[1-2]"], "gpu:8"),
        (["NodeName=n1", "NodeName=DEFAULT Gres=gpu:8"], ""),
        (["NodeName=default Gres=gpu:8", "NodeName=DEFAULT CPUs=1", "NodeName=n1"], "gpu:8"),
    ],
)
def test_the_gres_of_the_nodes_line(lines: list[str], gres: str | None) -> None:
    found = node_line(lines_of(*lines), "n1")
    assert (found and found[1]) == gres


def test_a_line_of_the_node_that_cannot_be_read_is_named() -> None:
    lines = lines_of("NodeName=n2 CPUs 8 Gres=gpu:1", "NodeName=n1 CPUs 8 Gres=gpu:2")
    with pytest.raises(InputError, match=r"/etc/slurm.conf line 2: cannot read 'CPUs 8"):
        node_line(lines, "n1")


def test_a_file_that_is_there_and_cannot_be_read_is_no_empty_file(tmp_path: Path) -> None:
    (tmp_path / "cgroup.conf").mkdir()
    with pytest.raises(ConfigError, match=r"cannot read .*cgroup.conf"):
        facts(tmp_path)


@pytest.mark.parametrize(
    ("there", "expected"),
    [((), "usual"), (("usual",), "usual"), (("sent",), "sent"), (("usual", "sent"), "usual")],
)
def test_a_node_without_files_of_its_own_has_what_its_controller_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], expected: str
) -> None:
    monkeypatch.setattr(environment, "DEFAULT_CONF", str(tmp_path / "usual"))
    monkeypatch.setattr(environment, "CONFIGLESS_CONF", str(tmp_path / "sent"))
    for name in there:
        (tmp_path / name).touch()

    assert default_conf_path() == str(tmp_path / expected)


def test_a_file_with_other_text_and_the_same_times_is_read_anew(tmp_path: Path) -> None:
    conf, gres = tmp_path / "slurm.conf", tmp_path / "gres.conf"
    conf.write_text("NodeName=n1 Gres=gpu:1\n")
    gres.write_text("Name=gpu File=/dev/nvidia0\n")
    known = gres.stat()
    assert read_node_conf(conf, "n1", "n1").gpu_devices[0].files == ("/dev/nvidia0",)
    gres.write_text("Name=gpu File=/dev/nvidia1\n")
    os.utime(gres, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert read_node_conf(conf, "n1", "n1").gpu_devices[0].files == ("/dev/nvidia1",)
