"""Every check, over a site that is in order and over one that has its fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from canhazgpu.config.schema import Config, EpilogConfig, RunConfig, SlurmConfig, ValidationConfig
from canhazgpu.config.web_section import WebConfig
from canhazgpu.gpu.scan import GpuHealth, GpuReading, MigDeviceNumbers
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.node_conf import SlurmNodeConf
from canhazgpu.schedulers.slurm.conf.parser import ConfLine, parse_line, parse_pairs
from canhazgpu.schedulers.slurm.conf.settings import Settings, collect_settings
from canhazgpu.schedulers.slurm.job_check.task_view import TaskView
from canhazgpu.schedulers.slurm.site.checks.registry import (
    CHECKS,
    CHECKS_NEEDING_CONFIG,
    CHECKS_NEEDING_SLURM_CONF,
    run_checks,
    worst_severity,
)
from canhazgpu.schedulers.slurm.site.layout import plan_layout
from canhazgpu.schedulers.slurm.site.state import (
    AgentState,
    ConfFile,
    ConfigState,
    HookProbeResult,
    InstalledHooks,
    Program,
    SiteState,
    SlurmState,
    StateDir,
)

REFERENCE = Path(__file__).parents[4] / "docs" / "admin" / "checks.md"
CONF = {
    "Prolog": "/etc/slurm/prolog.d/*",
    "Epilog": "/etc/slurm/epilog.d/*",
    "TaskProlog": "/etc/slurm/canhazgpu/task_prolog.sh",
    "PrologFlags": "Alloc",
    "PrologEpilogTimeout": "60",
    "MessageTimeout": "60",
    "BatchStartTimeout": "60",
    "HealthCheckProgram": "/etc/slurm/canhazgpu/health_check.sh",
    "HealthCheckInterval": "60",
    "HealthCheckNodeState": "ANY,CYCLE",
    "SchedulerParameters": "nohold_on_prolog_fail",
    "GresTypes": "gpu",
    "TaskPlugin": "task/cgroup",
    "ProctrackType": "proctrack/cgroup",
}
SCRIPTS = (
    "/etc/slurm/prolog.d/canhazgpu.sh",
    "/etc/slurm/epilog.d/canhazgpu.sh",
    "/etc/slurm/canhazgpu/task_prolog.sh",
    "/etc/slurm/canhazgpu/health_check.sh",
)


def settings(site: Mapping[str, str | None] = CONF, **values: str | None) -> Settings:
    merged = {**site, **values}
    return collect_settings(parse_line(f"{key}={value}") for key, value in merged.items() if value)


def facts(gres: str = "Name=gpu File=/dev/nvidia[0-1]", declared: str = "gpu:2") -> SlurmNodeConf:
    own, nodes = (
        tuple(ConfLine(*parse_pairs(line)) for line in text.splitlines())
        for text in (gres, f"NodeName=n1 {declared and f'Gres={declared}'}")
    )
    return SlurmNodeConf("n1", True, own, nodes, None)


def gpus(count: int) -> tuple[GpuReading, ...]:
    return tuple(
        GpuReading(index, f"GPU-{index}", index, "H100", 0, 80000) for index in range(count)
    )


HEALTHY = SiteState(
    node="n1",
    as_root=True,
    slurm=SlurmState(
        conf=ConfFile("/etc/slurm/slurm.conf"),
        settings=settings(),
        node_conf=facts(),
        knows_node=True,
        has_constrain_devices=True,
        version="slurm-wlm 22.05.8",
        controller_settings=settings(),
        programs={
            "Prolog": (Program(SCRIPTS[0]),),
            "Epilog": (Program(SCRIPTS[1]),),
            "TaskProlog": (Program(SCRIPTS[2]),),
            "HealthCheckProgram": (Program(SCRIPTS[3]),),
        },
    ),
    installed=InstalledHooks(
        layout=plan_layout(settings(), "/etc/slurm", {}, {}),
        layout_fault=None,
        scripts=dict.fromkeys(SCRIPTS, "same"),
        differences={},
        site_scripts=(),
        install_command="canhazgpu hooks install",
    ),
    config=ConfigState(
        config=Config(),
        fault=None,
        file="/etc/canhazgpu/config.toml",
        is_world_readable=True,
        has_password=False,
        users_file="/etc/canhazgpu/config.toml",
        users_file_blocked_by=None,
        python_blocked_by=None,
        invisible_to_hooks={},
        changeable_paths={},
    ),
    state_dir=StateDir("/run/canhazgpu", 0, 0o755),
    hook_probe=HookProbeResult(
        gpus=gpus(2),
        skew_s=0.2,
        skew_error_s=0.01,
        published_s=40.0,
        answer_s=0.01,
        evicts="",
        unsaved="",
        clients_mb=256.0,
        max_clients=10000,
        known_nodes=7,
    ),
    nvml_libraries=("/usr/lib64/libnvidia-ml.so.1",),
)

MIG = tuple(
    GpuReading(
        1,
        f"MIG-{place}",
        None,
        "H100 MIG 1g.10gb",
        0,
        9000,
        mig_index=place,
        mig_devices=MigDeviceNumbers(1, 147 + 9 * place, 148 + 9 * place),
    )
    for place in range(2)
)
"""The instances of /dev/nvidia1."""
MIG_LINE = (
    "Name=gpu Type=1g.10gb"
    " MultipleFiles=/dev/nvidia1,/dev/nvidia-caps/nvidia-cap{},/dev/nvidia-caps/nvidia-cap{}"
)
GRES_WITH_MIG = f"Name=gpu Type=h100 File=/dev/nvidia0\n{MIG_LINE.format(147, 148)}\n"
DECLARED_MIG = "gpu:h100:1,gpu:1g.10gb:"

Change = Callable[[SiteState], SiteState]


def slurm(**changes: Any) -> Change:
    return lambda site: replace(site, slurm=replace(site.slurm, **changes))


def conf(**values: str | None) -> Change:
    def change(site: SiteState) -> SiteState:
        present = {key: site.slurm.settings.get(key) for key in {**CONF, **values}}
        changed = settings(present, **values)
        return slurm(settings=changed, controller_settings=changed)(site)

    return change


def ours(**changes: Any) -> Change:
    return lambda site: replace(site, installed=replace(site.installed, **changes))


def config(**changes: Any) -> Change:
    return lambda site: replace(site, config=replace(site.config, **changes))


def hook(**changes: Any) -> Change:
    return lambda site: replace(site, hook_probe=replace(site.hook_probe, **changes))


def of(**changes: Any) -> Change:
    return lambda site: replace(site, **changes)


def lost_gpu(site: SiteState) -> SiteState:
    seen = replace(gpus(2)[1], fault="GPU is lost (NVML error 15)")
    return hook(gpus=(gpus(2)[0], seen))(site)


BROKEN: list[tuple[str, str, Change, str]] = [
    (
        "prolog",
        "error",
        slurm(programs={**HEALTHY.slurm.programs, "Prolog": (Program("/etc/slurm/prolog.d/a"),)}),
        "canhazgpu hooks install",
    ),
    (
        "epilog",
        "error",
        slurm(programs={**HEALTHY.slurm.programs, "Epilog": (Program("/etc/slurm/epilog.d/a"),)}),
        "canhazgpu hooks install",
    ),
    ("slurmd-user", "error", conf(SlurmdUser="slurm"), "SlurmdUser=root"),
    ("node-known", "warning", slurm(controller_knows_node=False), "restart slurmctld"),
    (
        "slurm-commands",
        "error",
        slurm(broken_commands={"squeue": "squeue --version failed: libmunge"}),
        "env -i SLURM_CONF=/etc/slurm/slurm.conf squeue --version",
    ),
    (
        "controller",
        "warning",
        slurm(controller_settings=None, controller_fault="no answer"),
        "scontrol ping",
    ),
    *(
        ("running-config", "warning", slurm(controller_settings=settings(**{key: value})), "reconf")
        for key, value in (
            ("MessageTimeout", "10 sec"),
            ("HealthCheckInterval", "0 sec"),
            ("GresTypes", "(null)"),
            ("HealthCheckProgram", "/usr/sbin/nhc"),
        )
    ),
    ("gpus", "error", lost_gpu, "nvidia-smi -q -i 1"),
    ("gpus", "error", hook(known_gpus=3), "--expected-gpus 2"),
    (
        "gpus",
        "error",
        config(config=Config(validation=ValidationConfig(expected_gpus=3))),
        "nvidia-smi -L",
    ),
    (
        "gpus",
        "warning",
        hook(gpus=(gpus(2)[0], replace(gpus(2)[1], health=GpuHealth(remap_pending=True)))),
        "canhazgpu validate",
    ),
    (
        "store",
        "error",
        hook(store_fault="is full", store_step="raise maxmemory"),
        "raise maxmemory",
    ),
    ("store-time", "warning", hook(answer_s=0.4), "redis-cli -h 127.0.0.1 -p 6379 --latency"),
    (
        "store-keeps",
        "warning",
        hook(evicts="allkeys-lru"),
        "redis-cli -h 127.0.0.1 -p 6379 config set maxmemory-policy noeviction",
    ),
    (
        "store-clients",
        "warning",
        hook(clients_mb=0.0),
        "redis-cli -h 127.0.0.1 -p 6379 config set maxmemory-clients 256mb",
    ),
    (
        "store-connections",
        "warning",
        hook(max_clients=8000, known_nodes=4000),
        "redis-cli -h 127.0.0.1 -p 6379 config set maxclients 8100",
    ),
    ("store-keeps", "warning", hook(unsaved="aof_last_write_status:err"), "free space"),
    (
        "state-dir",
        "error",
        of(state_dir=StateDir("/run/canhazgpu", 0, 0o755, write_fault="No space left on device")),
        "df /run/canhazgpu",
    ),
    (
        "state-dir",
        "error",
        of(state_dir=StateDir("/run/canhazgpu", 0, 0o755, damaged="published.json cannot be read")),
        "canhazgpu-healthcheck",
    ),
    (
        "state-dir",
        "warning",
        of(
            state_dir=StateDir(
                "/run/x", 0, 0o755, marker_dir="/var/lib/x", marker_fault="Read-only file system"
            )
        ),
        "another node.marker_dir",
    ),
    ("agent", "warning", of(agent=AgentState("2.0", "1.0")), "canhazgpu agent install"),
    ("agent", "warning", of(agent=AgentState("2.0", "2.0", not_taken="no x")), "agent reload"),
    ("agent", "warning", of(agent=AgentState("2.0", fault="no answer", unit="x")), "restart x"),
    ("agent", "warning", of(agent=AgentState("2.0", fault="no answer")), "agent install"),
    ("agent", "warning", of(agent=AgentState("2.0", unit="x.service")), "restart x.service"),
    (
        "page",
        "warning",
        config(config=Config(web=WebConfig(source="agent"))),
        'source = "auto" in [web]',
    ),
    (
        "unchecked-jobs",
        "warning",
        slurm(task_view=TaskView(("/tmp", "/run"))),
        "take it out of Dirs=",
    ),
    ("root", "warning", of(as_root=False), "sudo canhazgpu hooks check"),
    ("config", "error", config(fault="unknown key x"), "canhazgpu config show"),
    (
        "config",
        "warning",
        config(invisible_to_hooks={"store.url": "flag"}),
        "move store.url into the file",
    ),
    ("config-secret", "error", config(has_password=True), "chmod 600 /etc/canhazgpu/config.toml"),
    (
        "config-secret",
        "error",
        config(exposed_login_file="/etc/canhazgpu/store.login"),
        "chmod 600 /etc/canhazgpu/store.login",
    ),
    (
        "store-login",
        "warning",
        config(shared_login="hooks open the store as 'default'"),
        "canhazgpu store acl",
    ),
    (
        "config-readable",
        "warning",
        config(users_file_blocked_by="/etc/canhazgpu"),
        "chmod o+rX /etc/canhazgpu",
    ),
    (
        "config-readable",
        "warning",
        config(
            users_file_blocked_by="/etc/canhazgpu/config.toml",
            has_password=True,
            is_world_readable=False,
        ),
        "move the password into a file of the hooks' own",
    ),
    (
        "users-python",
        "warning",
        config(python_blocked_by="/root"),
        "python3 -m venv /opt/canhazgpu",
    ),
    (
        "trusted-paths",
        "error",
        config(changeable_paths={"/opt/python": ("/opt",)}),
        "chown root: /opt; chmod go-w /opt",
    ),
    ("slurm-conf", "error", slurm(conf=ConfFile("/x", "No such file")), "--slurm-conf FILE"),
    ("slurm-version", "warning", slurm(version=None), "slurm.bin_dir"),
    ("slurm-version", "warning", slurm(version="slurm 20.11.9"), "on one node"),
    ("slurm-version", "warning", slurm(version="slurm"), "on one node"),
    ("node-known", "warning", slurm(knows_node=False), "SLURMD_NODENAME=NAME"),
    ("hooks-place", "error", ours(layout=None, layout_fault="Prolog=x"), "hooks install"),
    (
        "hooks-installed",
        "error",
        ours(
            scripts={**HEALTHY.installed.scripts, SCRIPTS[0]: "different"},
            differences={SCRIPTS[0]: "was changed by hand"},
        ),
        "canhazgpu hooks install (with --dry-run it shows the difference)",
    ),
    (
        "hooks-installed",
        "error",
        ours(scripts={**HEALTHY.installed.scripts, SCRIPTS[1]: "absent"}),
        "canhazgpu hooks install",
    ),
    (
        "hooks-installed",
        "error",
        ours(
            scripts={**HEALTHY.installed.scripts, SCRIPTS[1]: "different"},
            differences={SCRIPTS[1]: "is for another: CANHAZGPU_CONFIG=/etc/x.toml"},
        ),
        "canhazgpu --config /etc/x.toml hooks check",
    ),
    ("hooks-installed", "error", ours(scripts={SCRIPTS[1]: "foreign"}), f"move {SCRIPTS[1]} away"),
    ("prolog", "error", conf(Prolog=None), "Prolog=/etc/slurm/prolog.d/*"),
    ("prolog", "error", conf(Prolog="/site/p.sh"), "Prolog=/etc/slurm/prolog.d/*"),
    ("epilog", "error", conf(Epilog=None), "Epilog=/etc/slurm/epilog.d/*"),
    ("task-prolog", "error", conf(TaskProlog="/site/t.sh"), f"TaskProlog={SCRIPTS[2]}"),
    (
        "task-prolog",
        "error",
        slurm(programs={**HEALTHY.slurm.programs, "TaskProlog": (Program("/t", "is no file"),)}),
        "canhazgpu hooks install",
    ),
    (
        "task-prolog",
        "error",
        ours(chained_scripts=(Program(SCRIPTS[2], "cannot be executed (mode 644)"),)),
        "canhazgpu hooks install",
    ),
    (
        "hook-patterns",
        "error",
        slurm(programs={**HEALTHY.slurm.programs, "Prolog": ()}),
        "canhazgpu hooks install",
    ),
    (
        "hook-scripts",
        "error",
        slurm(programs={**HEALTHY.slurm.programs, "Epilog": (Program("/e/README", "is no file"),)}),
        "move it out of the directory",
    ),
    (
        "site-scripts",
        "error",
        ours(site_scripts=(Program("/site/p.sh", "cannot be read"),)),
        "chmod 755 /site/p.sh",
    ),
    ("prolog-flags", "error", conf(PrologFlags="Serial"), "PrologFlags=Serial,Alloc"),
    ("run-in-job", "warning", conf(PrologFlags="Alloc,RunInJob"), "PrologFlags=Alloc"),
    ("run-in-job", "warning", conf(PrologFlags="RunInJob"), "PrologFlags=Alloc"),
    ("hook-timeout", "warning", conf(PrologEpilogTimeout=None), "PrologEpilogTimeout=60"),
    ("hook-timeout", "error", conf(PrologEpilogTimeout="30"), "PrologEpilogTimeout=60"),
    (
        "hook-timeout",
        "error",
        config(config=Config(slurm=SlurmConfig(hook_deadline_s=46, command_timeout_s=9.5))),
        "PrologEpilogTimeout=61",
    ),
    ("message-timeout", "warning", conf(MessageTimeout=None), "MessageTimeout=60"),
    ("unkillable-step", "warning", conf(UnkillableStepTimeout="299"), "UnkillableStepTimeout=300"),
    (
        "unkillable-step",
        "warning",
        conf(UnkillableStepTimeout="300", MessageTimeout="100"),
        "UnkillableStepTimeout=500",
    ),
    ("defer-batch", "warning", slurm(multi_node_jobs=True), "PrologFlags=Alloc,DeferBatch"),
    (
        "hook-names",
        "error",
        slurm(relative_hooks=("Prolog=prolog.d/*",)),
        "Prolog=/etc/slurm/prolog.d/*",
    ),
    ("hook-names", "error", slurm(relative_hooks=("TaskProlog=t.sh",)), f"TaskProlog={SCRIPTS[2]}"),
    (
        "hook-names",
        "error",
        lambda site: slurm(relative_hooks=("Prolog=p.sh",))(
            ours(layout=None, layout_fault="Epilog=x")(site)
        ),
        "Prolog=/etc/slurm/p.sh",
    ),
    ("health-check", "warning", conf(HealthCheckNodeState="START_ONLY"), "ANY,CYCLE"),
    ("health-check", "warning", conf(HealthCheckTimeout="30"), "HealthCheckTimeout=40"),
    ("batch-start", "warning", conf(BatchStartTimeout=None), "BatchStartTimeout=60"),
    ("batch-start", "warning", conf(BatchStartTimeout="59"), "BatchStartTimeout=60"),
    (
        "clean-up-time",
        "warning",
        # 10 s, 15 s and the last look's 3 s of 60 % of 45 s.
        config(config=Config(slurm=SlurmConfig(kill_grace_s=15))),
        "hook_deadline_s = 47 in [slurm]",
    ),
    (
        "clean-up-time",
        "warning",
        config(config=Config(epilog=EpilogConfig(settle_s=40, leftovers="report"))),
        "hook_deadline_s = 72 in [slurm]",
    ),
    (
        "health-check",
        "warning",
        conf(HealthCheckProgram=None),
        "HealthCheckProgram=/etc/slurm/canhazgpu/health_check.sh",
    ),
    ("health-check", "warning", conf(HealthCheckInterval="0"), "HealthCheckInterval=60"),
    (
        "health-check",
        "warning",
        conf(HealthCheckNodeState="IDLE"),
        "HealthCheckNodeState=ANY,CYCLE",
    ),
    (
        "health-check",
        "warning",
        slurm(
            programs={
                **HEALTHY.slurm.programs,
                "HealthCheckProgram": (Program(SCRIPTS[3], "cannot be read"),),
            }
        ),
        f"chmod 755 {SCRIPTS[3]}",
    ),
    ("published", "warning", hook(published_s=None), "SLURMD_NODENAME=n1 /etc/slurm/canhazgpu/"),
    ("published", "warning", hook(published_s=301.0), "--exit-code"),
    (
        "published",
        "warning",
        lambda site: hook(published_s=None)(conf(HealthCheckProgram="/usr/sbin/nhc")(site)),
        f"call {SCRIPTS[3]} from /usr/sbin/nhc",
    ),
    (
        "hold-on-failure",
        "warning",
        conf(SchedulerParameters=None),
        "SchedulerParameters=nohold_on_prolog_fail",
    ),
    (
        "running-config",
        "warning",
        slurm(controller_settings=settings(Prolog=None)),
        "scontrol reconfigure",
    ),
    (
        "running-config",
        "warning",
        slurm(controller_settings=settings(PrologFlags="X")),
        "scontrol reconfigure",
    ),
    ("gres-types", "error", conf(GresTypes=None), "GresTypes=gpu"),
    (
        "gres-files",
        "warning",
        slurm(node_conf=facts("AutoDetect=nvml")),
        "NodeName=n1 Name=gpu File=/dev/nvidia[0-1]",
    ),
    ("gres-files", "error", slurm(node_conf=facts("Name=gpu Count=2")), "File=/dev/nvidia[0-1]"),
    ("gres-files", "error", slurm(node_conf=facts(declared="gpu:1,gpu:a:1")), "nvidia[0-1]"),
    ("gres-files", "warning", slurm(slurmd_fault="slurmd -G failed: why"), "what slurmd names"),
    (
        "gpu-count",
        "error",
        slurm(slurmd_devices=(GpuDevice("", ("/dev/nvidia1",)), GpuDevice("", ("/dev/nvidia0",)))),
        "Gres=gpu:2 for n1",
    ),
    ("gres-files", "error", slurm(node_conf=facts(declared="gpu:3")), "File=/dev/nvidia[0-1]"),
    ("gres-files", "warning", slurm(node_conf=facts(declared="gpu:1")), "Gres=gpu:2 for n1"),
    (
        "gres-files",
        "error",
        slurm(node_conf=facts("Name=gpu Shared File=/dev/nvidia[0-1]")),
        "File=/dev/nvidia[0-1]",
    ),
    (
        "shared-gpus",
        "warning",
        slurm(
            node_conf=replace(facts(declared="gpu:2,shard:8"), constrains_devices=False),
            has_constrain_devices=False,
            version="slurm 24.11.5",
        ),
        'assignment = "slurm" in [slurm]',
    ),
    (
        "shared-gpus",
        "warning",
        slurm(node_conf=facts(declared="gpu:2,mps:200")),
        "separate partitions",
    ),
    (
        "assignment",
        "error",
        config(config=Config(slurm=SlurmConfig(assignment="canhazgpu"))),
        'assignment = "auto"',
    ),
    (
        "assignment",
        "error",
        config(config=Config(slurm=SlurmConfig(on_conflict="swap,requeue"))),
        'on_conflict = "requeue"',
    ),
    (
        "constrained-devices",
        "warning",
        lambda site: slurm(node_conf=replace(facts(), constrains_devices=False))(
            conf(TaskPlugin="Affinity")(site)
        ),
        "TaskPlugin=task/affinity,task/cgroup",
    ),
    (
        "process-tracking",
        "warning",
        conf(ProctrackType="proctrack/linuxproc"),
        "ProctrackType=proctrack/cgroup",
    ),
    (
        "job-report",
        "warning",
        config(config=Config(slurm=SlurmConfig(job_report="admin_comment"))),
        'job_report = "off"',
    ),
    (
        "job-report",
        "warning",
        lambda site: config(config=Config(slurm=SlurmConfig(job_report="admin_comment")))(
            slurm(accounting_fault="Connection refused")(
                conf(AccountingStorageType="accounting_storage/slurmdbd")(site)
            )
        ),
        "sacct -X -j 1",
    ),
    ("slurm-commands", "error", slurm(missing_commands=("scancel",)), "bin_dir ="),
    ("state-dir", "error", of(state_dir=StateDir("/run/x", 1000, 0o755)), "chown root: /run/x"),
    ("state-dir", "error", of(state_dir=StateDir("/run/x", 0, 0o775)), "chmod 755 /run/x"),
    ("state-dir", "error", of(state_dir=StateDir("/a/b", blocked_by="/a")), "chmod 755 /a"),
    ("hook-environment", "error", hook(fault="no answer"), "hooks install, with this Python"),
    (
        "gpus",
        "error",
        hook(gpus=(), gpu_fault="library not found"),
        'nvml_library = "/usr/lib64/libnvidia-ml.so.1"',
    ),
    ("gpu-count", "error", hook(gpus=gpus(1)), "Gres=gpu:1 for n1"),
    ("gpu-count", "warning", hook(gpus=gpus(4)), "Gres=gpu:4 for n1"),
    ("gpu-count", "error", hook(gpus=(*gpus(1), *MIG)), MIG_LINE.format(147, 148)),
    (
        "gpu-count",
        "warning",
        lambda site: slurm(node_conf=facts(GRES_WITH_MIG, f"{DECLARED_MIG}1"))(
            hook(gpus=(*gpus(1), *MIG))(site)
        ),
        MIG_LINE.format(156, 157),
    ),
    (
        "cuda-index",
        "error",
        lambda site: config(config=Config(slurm=SlurmConfig(export="index")))(
            slurm(
                node_conf=replace(facts(), constrains_devices=False), has_constrain_devices=False
            )(site)
        ),
        'export = "uuid" in [slurm]',
    ),
    (
        "cuda-index",
        "warning",
        config(config=Config(run=RunConfig(export="index"))),
        'export = "uuid" in [run]',
    ),
    ("store", "error", hook(store_fault="refused", skew_s=None), "ping"),
    ("clock", "warning", hook(skew_s=1.5), "chronyd"),
    ("clock", "warning", hook(skew_s=-3600.0), "chronyd"),
]


def problems(site: SiteState) -> dict[str, tuple[str, str]]:
    return {one.id: (one.severity, one.fix) for one in run_checks(site) if one.severity != "ok"}


def test_a_site_in_order_has_nothing_wrong_and_every_check_says_so() -> None:
    findings = run_checks(HEALTHY)
    assert problems(HEALTHY) == {}
    assert [one.id for one in findings] == [check.id for check in CHECKS]
    assert worst_severity(findings) == "ok"


def names_of(found: dict[str, Any], name: str) -> set[str]:
    """Return the checks beside the expected one that a fault may set off as well."""
    entailed = {
        "gres-files": {"gpu-count"},
        "hook-timeout": {"message-timeout", "batch-start"},
        "hook-names": {"hooks-place"},
        "hook-patterns": {"prolog"},
        "hook-scripts": {"epilog"},
    }
    return set(found) - {name} - entailed.get(name, set())


@pytest.mark.parametrize(
    ("name", "severity", "change", "fix"),
    BROKEN,
    ids=[f"{name}-{number}" for number, (name, *_) in enumerate(BROKEN)],
)
def test_a_fault_is_found_and_nothing_else(
    name: str, severity: str, change: Change, fix: str
) -> None:
    found = problems(change(HEALTHY))
    assert names_of(found, name) == set()
    assert found[name][0] == severity
    assert fix in found[name][1]


def lines_advised(site: SiteState) -> dict[str, set[str]]:
    """The values of each key that the fixes of all checks name."""
    found: dict[str, set[str]] = {}
    for one in run_checks(site):
        if line := LINE.match(one.fix):
            found.setdefault(line[1], set()).add(line[2])
    return found


LINE = re.compile(r"(\w+[a-z]) ?= ?(\S+)")
"""A line of slurm.conf or of the configuration; variables of the environment are in capitals."""


@pytest.mark.slow
def test_two_faults_at_once_never_ask_for_two_values_of_one_key() -> None:
    faults = [change for _, _, change, _ in BROKEN if lines_advised(change(HEALTHY))]
    contradictions = {
        (key, *sorted(values))
        for one, other in permutations(faults, 2)
        for key, values in lines_advised(other(one(HEALTHY))).items()
        if len(values) > 1
    }
    assert contradictions == set()


def test_every_check_is_tried() -> None:
    assert {name for name, *_ in BROKEN} == {check.id for check in CHECKS}


@pytest.mark.parametrize(
    "change",
    [
        conf(PrologFlags="Contain"),
        slurm(node_conf=facts(declared="gpu:2,shard:3"), version="slurm 24.11.5"),
        conf(PrologFlags="serial,x11"),
        slurm(version="slurm 23.11.4"),
        slurm(version="slurm 23.11.4", relative_hooks=("Prolog=prolog.d/*",)),
        conf(UnkillableStepTimeout="300"),
        lambda site: conf(PrologFlags="DeferBatch,X11")(slurm(multi_node_jobs=True)(site)),
        conf(HealthCheckTimeout="60"),
        slurm(controller_settings=None),
        slurm(controller_settings=settings(PrologFlags="Alloc,Contain")),
        conf(PrologEpilogTimeout="65534"),
        conf(HealthCheckProgram="/usr/sbin/nhc"),
        conf(HealthCheckNodeState="CYCLE"),
        hook(published_s=299.0),
        lambda site: hook(published_s=1000.0)(conf(HealthCheckInterval="300")(site)),
        config(config=Config(slurm=SlurmConfig(kill_grace_s=14))),
        hook(skew_s=1.5, skew_error_s=0.6),
        hook(skew_s=None),
        config(users_file=None, users_file_blocked_by=None),
        of(state_dir=StateDir("/run/canhazgpu")),
        of(agent=AgentState("2.0", "2.0", unit="x.service")),
        config(has_password=True, is_world_readable=False),
        config(config=Config(slurm=SlurmConfig(export="index"))),
        lambda site: config(config=Config(run=RunConfig(export="index")))(
            hook(gpus=tuple(replace(gpu, cuda_index=gpu.index) for gpu in gpus(2)))(site)
        ),
        lambda site: slurm(node_conf=facts("", ""))(hook(gpus=(), gpu_fault="no driver")(site)),
    ],
)
def test_what_is_no_fault_is_none(change: Change) -> None:
    assert problems(change(HEALTHY)) == {}


@pytest.mark.parametrize(
    ("change", "silent"),
    [
        (
            hook(fault="no answer", skew_s=None, gpus=()),
            {"gpus", "gpu-count", "cuda-index", "store", "clock", "published"}
            | {"store-time", "store-keeps", "store-clients", "store-connections"},
        ),
        (hook(gpu_fault="no driver", gpus=()), {"gpu-count", "cuda-index", "published"}),
        (
            hook(store_fault="refused", skew_s=None, published_s=None),
            {
                "clock",
                "published",
                "store-time",
                "store-keeps",
                "store-clients",
                "store-connections",
            },
        ),
        (hook(evicts=None, unsaved=None), {"store-keeps"}),
        (hook(clients_mb=None), {"store-clients"}),
        (hook(max_clients=None), {"store-connections"}),
        (slurm(controller_settings=None), {"running-config", "controller"}),
        (slurm(knows_node=False), {"gpu-count", "cuda-index", "gres-files", "published"}),
    ],
)
def test_what_was_not_seen_is_not_said_to_be_well(change: Change, silent: set[str]) -> None:
    said = {one.id for one in run_checks(change(HEALTHY))}
    assert said == {check.id for check in CHECKS} - silent


def test_a_site_without_any_script_is_told_once() -> None:
    site = ours(scripts=dict.fromkeys(SCRIPTS, "absent"))(hook(published_s=None)(HEALTHY))
    found = [one for one in run_checks(site) if one.severity != "ok"]
    assert [one.id for one in found] == ["hooks-installed"]
    assert found[0].wanted == ", ".join(SCRIPTS)


def test_a_slurm_conf_that_cannot_be_read_is_one_problem_and_not_twenty() -> None:
    unread = slurm(conf=ConfFile("/x", "no"), settings=Settings(), programs={}, knows_node=False)
    site = unread(HEALTHY)
    assert set(problems(site)) == {"slurm-conf"}
    said = {one.id for one in run_checks(site)}
    assert said == {check.id for check in CHECKS} - CHECKS_NEEDING_SLURM_CONF - {"published"}


def test_a_configuration_that_cannot_be_read_is_one_problem() -> None:
    unread = config(fault="no TOML")
    site = unread(hook(fault="never asked")(ours(scripts={})(HEALTHY)))
    assert set(problems(site)) == {"config"}
    assert {one.id for one in run_checks(site)} == {
        check.id for check in CHECKS
    } - CHECKS_NEEDING_CONFIG
    assert worst_severity(run_checks(site)) == "error"


def test_a_node_whose_instances_are_all_in_gres_conf_is_fine() -> None:
    gres = f"{GRES_WITH_MIG}{MIG_LINE.format(156, 157)}\n"
    change = slurm(node_conf=facts(gres, f"{DECLARED_MIG}2"))
    assert problems(change(hook(gpus=(*gpus(1), *MIG))(HEALTHY))) == {}


def test_a_node_whose_capability_files_cannot_be_read_is_told_beforehand() -> None:
    unknown = tuple(replace(one, mig_devices=MigDeviceNumbers(1)) for one in MIG)
    change = slurm(node_conf=facts(GRES_WITH_MIG, f"{DECLARED_MIG}1"))
    findings = run_checks(change(hook(gpus=(*gpus(1), *unknown))(HEALTHY)))
    (found,) = [one for one in findings if one.id == "gpu-count"]
    assert found.severity == "error"
    assert "which MIG instance that is cannot be known" in str(found)
    assert "MultipleFiles=/dev/nvidia1,/dev/nvidia-caps/nvidia-capN" in found.fix


def test_units_of_shard_that_nobody_tells_are_found_before_24_11() -> None:
    change = slurm(node_conf=facts(declared="gpu:2,shard:3"))
    found = [one for one in run_checks(change(HEALTHY)) if one.id == "shared-gpus"]
    assert [one.severity for one in found] == ["warning", "warning"]
    assert "counts as a whole GPU in 'canhazgpu report'" in found[1].found


def test_who_checks_a_job_without_a_prolog_is_told() -> None:
    def said(site: SiteState) -> str:
        return next(one.found for one in run_checks(site) if one.id == "unchecked-jobs")

    asked = of(agent=AgentState("2.0", "2.0"))(HEALTHY)
    in_containers = slurm(task_view=TaskView(has_pyxis=True))
    assert "no agent runs that a task could ask" in said(HEALTHY)
    assert "has the agent check the job first" in said(asked) and "pyxis" not in said(asked)
    assert "in a container of pyxis it cannot" in said(in_containers(asked))


def test_a_node_without_an_agent_is_told_of_it_and_one_with_it_what_it_has() -> None:
    def said(site: SiteState) -> str:
        return next(one.found for one in run_checks(site) if one.id == "agent")

    assert "canhazgpu agent install" in said(HEALTHY)
    assert said(of(agent=AgentState("2.0", "2.0"))(HEALTHY)) == (
        "the agent answers, with this release"
    )


@pytest.mark.parametrize(
    ("source", "has_agent", "text"),
    [
        ("auto", True, "reads the store, or asks the agent where its user has no login"),
        ("auto", False, "reads the store, with the login of its user"),
        ("store", True, "reads the store, with the login of its user"),
        ("agent", True, "asks the agent"),
    ],
)
def test_what_a_page_here_reads_is_told(source: str, has_agent: bool, text: str) -> None:
    site = config(config=Config(web=WebConfig(source=source)))(HEALTHY)
    if has_agent:
        site = of(agent=AgentState("2.0", "2.0"))(site)
    found = [one for one in run_checks(site) if one.id == "page"]
    assert [(one.severity, one.found) for one in found] == [("ok", f"a page here {text}")]


def test_every_check_is_in_the_administrators_reference() -> None:
    described = set(re.findall(r"^\| `([a-z-]+)` \|", REFERENCE.read_text(), re.MULTILINE))
    assert described == {check.id for check in CHECKS}
