"""Text of slurm.conf, gres.conf and cgroup.conf for a cluster: values in, strings out."""

from __future__ import annotations

from dataclasses import dataclass

from demo_cluster.accounting import accounting_lines
from demo_cluster.layout import Layout
from demo_cluster.spec import ClusterSpec, NodeSpec

FAST_SCHEDULING = (
    "sched_interval=1",
    "sched_min_interval=0",
    "bf_interval=1",
    "batch_sched_delay=0",
)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the daemons listen: this host's name, and one TCP port for each; 0 for none."""

    host: str
    controller_port: int
    node_ports: tuple[int, ...]
    accounting_port: int = 0


def slurm_conf(spec: ClusterSpec, layout: Layout, endpoints: Endpoints) -> str:
    blocks = (
        _identity(spec, layout, endpoints),
        _paths(layout),
        _timeouts_and_scheduling(spec),
        _plugins(spec),
        _accounting(layout, endpoints),
        _hooks(spec),
        _nodes_and_partition(spec, endpoints),
        spec.slurm_conf_extra,
    )
    return "\n".join(block.rstrip("\n") for block in blocks if block) + "\n"


def gres_conf(spec: ClusterSpec, layout: Layout) -> str:
    lines = [f"AutoDetect={spec.autodetect}"]
    for node in spec.node_specs():
        if spec.autodetect == "off":
            lines += _gpu_lines(spec, layout, node)
        lines += [
            f"NodeName={node.name} Name={name} Count={count}" for name, count in spec.shared_gres
        ]
    return "\n".join([*lines, spec.gres_conf_extra.rstrip("\n")]).rstrip("\n") + "\n"


def _gpu_lines(spec: ClusterSpec, layout: Layout, node: NodeSpec) -> list[str]:
    return [
        f"NodeName={node.name} Name=gpu{kind} {_device_files(layout, node, files)}"
        for files, kind in zip(spec.gpu_files_of(node), _gres_types(spec, node), strict=True)
    ]


def _gres_types(spec: ClusterSpec, node: NodeSpec) -> list[str]:
    return [f" Type={kind}" for kind in spec.gpu_types] or [""] * len(spec.gpu_files_of(node))


def _device_files(layout: Layout, node: NodeSpec, files: tuple[str, ...]) -> str:
    paths = ",".join(str(layout.devices(node.name) / file) for file in files)
    return f"File={paths}" if len(files) == 1 else f"MultipleFiles={paths}"


def _gres_value(spec: ClusterSpec, node: NodeSpec) -> str:
    kinds = list(dict.fromkeys(spec.gpu_types))
    typed = [f"gpu:{kind}:{spec.gpu_types.count(kind)}" for kind in reversed(kinds)]
    shared = [f"{name}:{count}" for name, count in spec.shared_gres]
    return ",".join([*(typed or [f"gpu:{len(spec.gpu_files_of(node))}"]), *shared])


def cgroup_conf(spec: ClusterSpec, layout: Layout, plugin: str) -> str:
    """`plugin` is `cgroup/v1` or `cgroup/v2`, whichever this host has mounted."""
    lines = [f"CgroupPlugin={plugin}", "ConstrainCores=no", "ConstrainRAMSpace=no"]
    if plugin == "cgroup/v1":
        lines.append(f"CgroupMountpoint={layout.cgroup_mount}")
    else:
        lines.append("IgnoreSystemd=yes")
    lines.append(f"ConstrainDevices={'yes' if spec.constrain_devices else 'no'}")
    return "\n".join([*lines, spec.cgroup_conf_extra.rstrip("\n")]).rstrip("\n") + "\n"


def _identity(spec: ClusterSpec, layout: Layout, endpoints: Endpoints) -> str:
    return f"""\
ClusterName={spec.cluster_name}
SlurmctldHost={endpoints.host}(127.0.0.1)
SlurmctldPort={endpoints.controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={layout.munge_socket}
CredType=cred/munge
"""


def _paths(layout: Layout) -> str:
    return f"""\
StateSaveLocation={layout.controller_state}
SlurmdSpoolDir={layout.state}/%n
SlurmctldPidFile={layout.pid_file("slurmctld")}
SlurmdPidFile={layout.run}/%n.pid
SlurmctldLogFile={layout.log("slurmctld")}
SlurmdLogFile={layout.logs}/%n.log
"""


def _timeouts_and_scheduling(spec: ClusterSpec) -> str:
    scheduling = [*FAST_SCHEDULING]
    if spec.nohold_on_prolog_fail:
        scheduling.append("nohold_on_prolog_fail")
    return f"""\
SlurmctldDebug=info
SlurmdDebug=info
SlurmctldTimeout=60
SlurmdTimeout=60
MessageTimeout=60
TCPTimeout=10
ReturnToService=2
KillWait={spec.kill_wait_s}
MinJobAge=3600
InactiveLimit=0
Waittime=0
UnkillableStepTimeout=300
SchedulerType=sched/backfill
SchedulerParameters={",".join(scheduling)}
SlurmdParameters=config_overrides
"""


def _plugins(spec: ClusterSpec) -> str:
    tracking = "proctrack/cgroup" if spec.constrain_devices else "proctrack/linuxproc"
    return f"""\
ProctrackType={tracking}
TaskPlugin={"task/cgroup" if spec.constrain_devices else "task/none"}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes={",".join(["gpu", *(name for name, _ in spec.shared_gres)])}
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
"""


def _accounting(layout: Layout, endpoints: Endpoints) -> str:
    if not endpoints.accounting_port:
        return "AccountingStorageType=accounting_storage/none"
    return accounting_lines(layout, endpoints.accounting_port)


def _hooks(spec: ClusterSpec) -> str:
    settings: dict[str, object | None] = {
        "PrologFlags": ",".join(spec.prolog_flags) or None,
        "Prolog": spec.prolog,
        "Epilog": spec.epilog,
        "TaskProlog": spec.task_prolog,
        "TaskEpilog": spec.task_epilog,
        "PrologEpilogTimeout": spec.prolog_epilog_timeout_s,
        "HealthCheckProgram": spec.health_check_program,
        "HealthCheckInterval": spec.health_check_interval_s or None,
    }
    return "\n".join(f"{name}={value}" for name, value in settings.items() if value is not None)


def _nodes_and_partition(spec: ClusterSpec, endpoints: Endpoints) -> str:
    nodes = spec.node_specs()
    lines = [
        _node_line(spec, node, endpoints.host, port)
        for node, port in zip(nodes, endpoints.node_ports, strict=True)
    ]
    names = ",".join(node.name for node in nodes)
    lines.append(f"PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP")
    return "\n".join(lines)


def _node_line(spec: ClusterSpec, node: NodeSpec, host: str, port: int) -> str:
    gres = f" Gres={_gres_value(spec, node)}" if node.minors else ""
    return (
        f"NodeName={node.name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
        f"CPUs={spec.cpus_per_node} RealMemory={spec.memory_mb_per_node}{gres} State=UNKNOWN"
    )
