"""The registry of all checks of a node, and their findings; pure.

A check is a function from a `SiteState` to the problems that it finds. To add a check, write the
function, and add it here and to ``docs/admin/checks.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from canhazgpu.schedulers.slurm.site.checks import (
    accounting,
    agent,
    conf,
    export,
    gpus,
    health,
    hooks,
    node,
    shared_gpus,
    store,
    unchecked_jobs,
)
from canhazgpu.schedulers.slurm.site.state import Problem, Severity, SiteState

CheckFunction = Callable[[SiteState], Iterator[Problem]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its id, the text for no problem (or what gives it), and the function.

    `applies` tells whether the check's input is known; if not, the check gives no finding.
    """

    id: str
    ok_text: str | Callable[[SiteState], str]
    find_problems: CheckFunction
    applies: Callable[[SiteState], bool] = lambda _site: True


def _probe_succeeded(site: SiteState) -> bool:
    return site.hook_probe.fault is None


def _gpus_readable(site: SiteState) -> bool:
    return _probe_succeeded(site) and site.slurm.knows_node and site.hook_probe.gpu_fault is None


def _store_reachable(site: SiteState) -> bool:
    return _probe_succeeded(site) and site.hook_probe.store_fault is None


def _clock_measured(site: SiteState) -> bool:
    return _store_reachable(site) and site.hook_probe.skew_s is not None


def _publication_expected(site: SiteState) -> bool:
    """Tell whether an installed health check should have published the GPUs."""
    layout = site.installed.layout
    installed = layout is not None and site.installed.scripts.get(layout.health_check) != "absent"
    return (
        installed and _store_reachable(site) and _gpus_readable(site) and bool(site.hook_probe.gpus)
    )


def _controller_answered(site: SiteState) -> bool:
    return site.slurm.controller_settings is not None


def _controller_asked(site: SiteState) -> bool:
    return _controller_answered(site) or site.slurm.controller_fault is not None


def _store_settings_known(site: SiteState) -> bool:
    return _store_reachable(site) and site.hook_probe.evicts is not None


def _clients_limit_known(site: SiteState) -> bool:
    return _store_reachable(site) and site.hook_probe.clients_mb is not None


def _connections_limit_known(site: SiteState) -> bool:
    return _store_reachable(site) and site.hook_probe.max_clients is not None


def _node_known(site: SiteState) -> bool:
    return site.slurm.knows_node


CHECKS = (
    Check("root", "the check runs as root, as hooks do", node.root),
    Check("config", "hooks read the configuration that is in force here", node.config),
    Check("config-secret", "no password is for everybody to read", node.config_secret),
    Check("config-readable", "users can read their configuration", node.config_readable),
    Check("users-python", "users can run canhazgpu", node.users_python),
    Check(
        "trusted-paths", "nobody but root can change what root runs and reads", node.trusted_paths
    ),
    Check("slurm-conf", "slurm.conf is found and read", conf.slurm_conf),
    Check(
        "slurm-version",
        "Slurm's release is one that canhazgpu was tried on, or newer",
        conf.slurm_version,
    ),
    Check("node-known", "slurm.conf has this node, and the controller knows it", conf.node_known),
    Check("slurmd-user", "hooks run as root", conf.slurmd_user),
    Check("hooks-place", "canhazgpu's scripts fit beside the site's own", hooks.hooks_place),
    Check(
        "hooks-installed",
        "the scripts are those that this canhazgpu installs",
        hooks.hooks_installed,
    ),
    Check("prolog", "Slurm runs canhazgpu's prolog", hooks.prolog),
    Check("epilog", "Slurm runs canhazgpu's epilog", hooks.epilog),
    Check("task-prolog", "Slurm runs canhazgpu's task prolog", hooks.task_prolog),
    Check("hook-names", "Slurm finds the scripts by the names that it has", hooks.hook_names),
    Check(
        "hook-patterns", "every pattern of Prolog and Epilog matches a file", hooks.hook_patterns
    ),
    Check(
        "hook-scripts", "Slurm can run every file that Prolog and Epilog name", hooks.hook_scripts
    ),
    Check(
        "site-scripts", "the site's own scripts can be run beside canhazgpu's", hooks.site_scripts
    ),
    Check("prolog-flags", "the prolog runs when a job is allocated", conf.prolog_flags),
    Check("defer-batch", "a batch script waits for the prologs of all its nodes", conf.defer_batch),
    Check("run-in-job", "the prolog sees all GPUs of the node", conf.run_in_job),
    Check("hook-timeout", "Slurm gives the hooks the time that they may take", conf.hook_timeout),
    Check("message-timeout", "srun waits for a slow prolog", conf.message_timeout),
    Check(
        "unkillable-step",
        "UnkillableStepTimeout fits the MessageTimeout of the hooks",
        conf.unkillable_step,
    ),
    Check("batch-start", "Slurm waits for the batch script of a slow prolog", conf.batch_start),
    Check("clean-up-time", "the epilog has the time that its waits may take", conf.clean_up_time),
    Check("hold-on-failure", "a batch job whose prolog failed is not held", conf.hold_on_failure),
    Check(
        "running-config",
        "the controller runs with this slurm.conf",
        hooks.running_config,
        _controller_answered,
    ),
    Check("gres-types", "Slurm counts GPUs", conf.gres_types),
    Check("gres-files", "gres.conf names the GPUs' device files", conf.gres_files, _node_known),
    Check(
        "shared-gpus",
        "jobs share GPUs by shard and mps as Slurm counts them, where it does",
        shared_gpus.shared_gpus,
    ),
    Check("assignment", "jobs can open the GPUs that canhazgpu gives them", conf.assignment),
    Check("constrained-devices", "ConstrainDevices does what it says", conf.constrained_devices),
    Check("health-check", "Slurm runs a health check on every node", health.health_check),
    Check("process-tracking", "no process of a job leaves Slurm's sight", conf.process_tracking),
    Check(
        "slurm-commands",
        "hooks find Slurm's commands, which they need on a conflict, and they run",
        node.slurm_commands,
    ),
    Check(
        "job-report",
        "Slurm takes what jobs made of their GPUs, where it is to be told",
        accounting.job_report,
    ),
    Check("controller", "Slurm's controller answers", node.controller, _controller_asked),
    Check(
        "state-dir",
        "root alone keeps the node's records, and can; tasks can read them",
        node.state_dir,
    ),
    Check(
        "hook-environment",
        "canhazgpu runs with nothing but a hook's environment",
        node.hook_environment,
    ),
    Check("agent", agent.agent_text, agent.agent),
    Check("page", agent.page_text, agent.page),
    Check("unchecked-jobs", unchecked_jobs.unchecked_jobs_text, unchecked_jobs.unchecked_jobs),
    Check("gpus", "hooks can read every GPU, and each is healthy", gpus.gpus, _probe_succeeded),
    Check(
        "gpu-count", "the driver shows the GPUs that Slurm counts", gpus.gpu_count, _gpus_readable
    ),
    Check(
        "cuda-index", "GPUs are named so that CUDA finds them", export.cuda_index, _gpus_readable
    ),
    Check("store", "the store takes a hook's changes", store.store, _probe_succeeded),
    Check("store-login", "only this node can change its records", store.store_login),
    Check("store-time", "the store answers in time", store.store_time, _clock_measured),
    Check("store-keeps", "the store keeps what it has", store.store_keeps, _store_settings_known),
    Check(
        "store-clients",
        "no client of the store can take all its memory",
        store.store_clients,
        _clients_limit_known,
    ),
    Check(
        "store-connections",
        "the store takes enough connections for its nodes",
        store.store_connections,
        _connections_limit_known,
    ),
    Check("clock", "the node's clock agrees with the store's", store.clock, _clock_measured),
    Check(
        "published",
        "the node's GPUs were published lately",
        health.published,
        _publication_expected,
    ),
)
"""In the order of the output."""

CHECKS_NEEDING_SLURM_CONF = frozenset(
    one.id
    for one in CHECKS
    if one.find_problems.__module__
    in (conf.__name__, hooks.__name__, health.__name__, shared_gpus.__name__, accounting.__name__)
    and one.find_problems not in (conf.slurm_conf, conf.clean_up_time, hooks.hooks_installed)
) | {"gpu-count", "cuda-index"}
"""Checks without a finding if slurm.conf could not be read."""

CHECKS_NEEDING_CONFIG = frozenset(
    {
        "shared-gpus",
        "hooks-installed",
        "hook-timeout",
        "message-timeout",
        "batch-start",
        "clean-up-time",
    }
    | {"assignment", "state-dir", "hook-environment", "gpus", "gpu-count", "store", "clock"}
    | {
        "agent",
        "page",
        "job-report",
        "unchecked-jobs",
        "published",
        "unkillable-step",
        "cuda-index",
        "store-time",
        "store-keeps",
        "store-clients",
        "store-connections",
    }
)
"""Checks without a finding if canhazgpu's configuration could not be read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem that a check found, or that it found none."""

    id: str
    severity: Severity
    found: str
    wanted: str = ""
    fix: str = ""


def run_checks(site: SiteState) -> tuple[Finding, ...]:
    """Return the findings of all checks, in the order of `CHECKS`."""
    return tuple(finding for check in CHECKS for finding in _findings(check, site))


def checks_left_out(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Return the ids of the checks without a finding: what they examine could not be read."""
    found = {finding.id for finding in findings}
    return tuple(check.id for check in CHECKS if check.id not in found)


def _findings(check: Check, site: SiteState) -> Iterator[Finding]:
    if (site.slurm.conf.fault and check.id in CHECKS_NEEDING_SLURM_CONF) or (
        site.config.fault and check.id in CHECKS_NEEDING_CONFIG
    ):
        return
    if not check.applies(site):
        return
    is_ok = True
    for problem in check.find_problems(site):
        is_ok = False
        yield Finding(check.id, problem.severity, problem.found, problem.wanted, problem.fix)
    if is_ok:
        text = check.ok_text if isinstance(check.ok_text, str) else check.ok_text(site)
        yield Finding(check.id, "ok", text)


def worst_severity(findings: Iterable[Finding]) -> Severity:
    """Return the worst severity among the findings."""
    found = {finding.severity for finding in findings}
    return "error" if "error" in found else "warning" if "warning" in found else "ok"
