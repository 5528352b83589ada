"""The checks of slurm.conf, gres.conf and cgroup.conf; pure."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator

from canhazgpu.config.conflict_chain import swap_error
from canhazgpu.conflict.leftovers import CLEAN_UP_TIME_SHARE, FINAL_SCAN_S
from canhazgpu.errors import InputError
from canhazgpu.schedulers.slurm.conf.gres_line import gres_lines_advice
from canhazgpu.schedulers.slurm.site import required_lines
from canhazgpu.schedulers.slurm.site.required_lines import ConfLine
from canhazgpu.schedulers.slurm.site.state import Problem, Severity, SiteState

OLDEST_TESTED_RELEASE = (22, 5)


def slurm_conf(site: SiteState) -> Iterator[Problem]:
    """Find a slurm.conf that cannot be read."""
    conf = site.slurm.conf
    if conf.fault:
        fix = "canhazgpu hooks check --slurm-conf FILE"
        yield Problem("error", f"{conf.path}: {conf.fault}", "a file that can be read", fix)


def slurm_version(site: SiteState) -> Iterator[Problem]:
    """Find a release older than those that canhazgpu was tested on."""
    version = site.slurm.version
    wanted = "22.05 or newer"
    if version is None:
        yield Problem("warning", "slurmd -V gave no answer", wanted, "set slurm.bin_dir")
        return
    found = re.search(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_TESTED_RELEASE:
        yield Problem("warning", version, wanted, "try canhazgpu on one node first")


def node_known(site: SiteState) -> Iterator[Problem]:
    """Find a node that is not in slurm.conf."""
    if not site.slurm.knows_node:
        yield Problem(
            "warning",
            f"no NodeName={site.node} in slurm.conf",
            "the node's name as slurmd knows it",
            f"SLURMD_NODENAME=NAME canhazgpu hooks check, or NodeName={site.node} in slurm.conf",
        )
    elif site.slurm.controller_knows_node is False:
        yield Problem(
            "warning",
            f"the controller knows no node {site.node}, which slurm.conf has here",
            "the same slurm.conf on the controller",
            "systemctl restart slurmctld, once its slurm.conf has the node",
        )


def slurmd_user(site: SiteState) -> Iterator[Problem]:
    """Find a slurmd whose hooks do not run as root."""
    user = site.slurm.settings.get("SlurmdUser")
    if user not in ("", "root", "0"):
        yield Problem(
            "error",
            f"SlurmdUser={user}: hooks can neither keep the node's records nor end processes",
            "root",
            "SlurmdUser=root",
        )


def prolog_flags(site: SiteState) -> Iterator[Problem]:
    """Find a prolog that runs only before the first step."""
    line = _prolog_flags_line(site)
    if line and not required_lines.runs_at_allocation(site.slurm.settings.words(line.key)):
        yield missing_line_problem("error", line)


def defer_batch(site: SiteState) -> Iterator[Problem]:
    """Find a batch script that starts before the prologs of the job's other nodes are done."""
    line = _prolog_flags_line(site)
    defers = required_lines.defers_batch(site.slurm.settings.words("PrologFlags"))
    if line and site.slurm.multi_node_jobs and not defers:
        yield missing_line_problem("warning", line)


def _prolog_flags_line(site: SiteState) -> ConfLine | None:
    """Return the line for PrologFlags, the same for all checks of it."""
    return required_lines.prolog_flags_line(
        site.slurm.settings, multi_node_jobs=site.slurm.multi_node_jobs
    )


def unkillable_step(site: SiteState) -> Iterator[Problem]:
    """Find an UnkillableStepTimeout that is too short for the MessageTimeout of the hooks."""
    limit_s = required_lines.hook_limit_s(site.config.config.slurm)
    if line := required_lines.unkillable_step_line(site.slurm.settings, limit_s):
        yield missing_line_problem("warning", line)


def run_in_job(site: SiteState) -> Iterator[Problem]:
    """Find hooks that begin inside their job, and have to leave it."""
    line = _prolog_flags_line(site)
    if line and required_lines.RUN_IN_JOB in site.slurm.settings.words(line.key):
        yield Problem(
            "warning",
            "PrologFlags has RunInJob: hooks have to leave their job's control groups",
            "hooks that slurmd runs outside the job",
            line.text,
        )


def hook_timeout(site: SiteState) -> Iterator[Problem]:
    """Find timeouts of Slurm that are too short for canhazgpu's hooks."""
    limit_s = required_lines.hook_limit_s(site.config.config.slurm)
    for line in required_lines.timeout_lines(site.slurm.settings, limit_s):
        yield missing_line_problem("error" if line.instead_of else "warning", line)


def message_timeout(site: SiteState) -> Iterator[Problem]:
    """Find a MessageTimeout with which srun fails while a prolog still runs."""
    limit_s = required_lines.hook_limit_s(site.config.config.slurm)
    if line := required_lines.message_timeout_line(site.slurm.settings, limit_s):
        yield missing_line_problem("warning", line)


def batch_start(site: SiteState) -> Iterator[Problem]:
    """Find a BatchStartTimeout after which a job with a slow prolog counts as lost."""
    limit_s = required_lines.hook_limit_s(site.config.config.slurm)
    if line := required_lines.batch_start_line(site.slurm.settings, limit_s):
        yield missing_line_problem("warning", line)


def clean_up_time(site: SiteState) -> Iterator[Problem]:
    """Find an epilog whose time is shorter than the waits of its clean-up."""
    slurm, epilog = site.config.config.slurm, site.config.config.epilog
    grace_s = slurm.kill_grace_s if epilog.leftovers == "kill" else 0.0
    needed_s = epilog.settle_s + grace_s + FINAL_SCAN_S
    given_s = slurm.hook_deadline_s * CLEAN_UP_TIME_SHARE
    if needed_s > given_s:
        deadline_s = math.ceil(needed_s / CLEAN_UP_TIME_SHARE)
        yield Problem(
            "warning",
            f"the epilog has {given_s:g} s for its clean-up, and epilog.settle_s and"
            f" slurm.kill_grace_s need {needed_s:g} s: GPUs are quarantined before they are free",
            "enough time for both",
            f"hook_deadline_s = {deadline_s} in [slurm], and then what hook-timeout says;"
            " or a smaller epilog.settle_s",
        )


def hold_on_failure(site: SiteState) -> Iterator[Problem]:
    """Find a setting with which batch jobs are held after a failed prolog."""
    if line := required_lines.no_hold_line(site.slurm.settings):
        yield missing_line_problem("warning", line)


def gres_types(site: SiteState) -> Iterator[Problem]:
    """Find GresTypes without gpu."""
    if line := required_lines.gres_types_line(site.slurm.settings):
        yield missing_line_problem("error", line)


def gres_files(site: SiteState) -> Iterator[Problem]:
    """Find GPUs whose device files gres.conf does not name, and files that Slurm does not use."""
    node_conf = site.slurm.node_conf
    try:
        devices = node_conf.gpu_devices
        listed = sum(len(one.devices) for one in node_conf.gres_conf.records)
        detected = node_conf.gres_conf.autodetect
        counted = node_conf.gpu_count
    except InputError as exc:
        yield Problem("error", str(exc), "files and Gres= that agree", _gres_line(site))
        return
    if fault := site.slurm.slurmd_fault:
        yield Problem(
            "warning", f"slurmd -G did not answer: {fault}", "its answer", "mend what slurmd names"
        )
    yield from _gres_count_problems(site, len(devices), listed, counted, detected)


def _gres_count_problems(
    site: SiteState, used: int, listed: int, counted: int | None, detected: str
) -> Iterator[Problem]:
    """Compare how many GPUs Slurm uses, gres.conf lists and Gres= counts."""
    if detected:
        yield Problem(
            "warning",
            f"AutoDetect={detected}: the order of the GPUs is slurmd's, not that of gres.conf, and"
            " while a GPU is missing every job goes back",
            "AutoDetect=off, and the device files in the order of their numbers",
            _gres_line(site),
        )
    elif not used and counted:
        yield Problem(
            "error",
            f"gres.conf has no File= for the GPUs of {site.node}: Slurm gives no job any of them",
            "the device files in the order of their numbers",
            _gres_line(site),
        )
    elif used and counted and used < counted:
        yield Problem(
            "error",
            f"Slurm finds files for {used} of the {counted} GPUs that Gres= gives"
            f" {site.node}, and takes no job there",
            "files and Gres= that agree, type by type",
            _gres_line(site),
        )
    elif used and listed > used:
        yield Problem(
            "warning",
            f"gres.conf names {listed} GPUs, Gres= counts {used} of them: Slurm ignores"
            " the others, type by type",
            "files and Gres= that agree, type by type",
            f"{_gres_value(site, listed)}, with each type that gres.conf has",
        )


def _gres_line(site: SiteState) -> str:
    if any(gpu.is_mig_instance for gpu in site.hook_probe.gpus):
        return gres_lines_advice(site.node, site.hook_probe.gpus)
    count = len(site.hook_probe.gpus)
    if not count:
        with contextlib.suppress(InputError):
            count = site.slurm.node_conf.gpu_count or 0
    return f"NodeName={site.node} Name=gpu File=/dev/nvidia[0-{max(count - 1, 0)}]"


def _gres_value(site: SiteState, listed: int) -> str:
    """Return what Gres= should have: the driver's GPUs if they were read, as `gpu-count` says."""
    seen = site.hook_probe.gpus
    return gres_lines_advice(site.node, seen) if seen else f"Gres=gpu:{listed} for {site.node}"


def assignment(site: SiteState) -> Iterator[Problem]:
    """Find an assignment whose GPUs jobs cannot open."""
    if (
        site.config.config.slurm.assignment == "canhazgpu"
        and site.slurm.node_conf.constrains_devices
    ):
        yield Problem(
            "error",
            'slurm.assignment = "canhazgpu" and ConstrainDevices=yes in cgroup.conf: every job'
            " with GPUs goes back",
            '"auto" or "slurm"',
            'assignment = "auto"',
        )
    slurm = site.config.config.slurm
    if fault := swap_error(slurm.chains(), constrained=site.slurm.node_conf.constrains_devices):
        yield Problem("error", fault, "a chain without swap", 'on_conflict = "requeue"')


def constrained_devices(site: SiteState) -> Iterator[Problem]:
    """Find a ConstrainDevices=yes without effect."""
    settings = site.slurm.settings
    if site.slurm.has_constrain_devices and not site.slurm.node_conf.constrains_devices:
        plugins = [one for one in settings.plugins("TaskPlugin", "task") if one != "none"]
        yield Problem(
            "warning",
            "ConstrainDevices=yes has no effect with"
            f" TaskPlugin={settings.get('TaskPlugin') or '(unset)'}",
            "task/cgroup",
            f"TaskPlugin={','.join(f'task/{one}' for one in [*plugins, 'cgroup'])}",
        )


def process_tracking(site: SiteState) -> Iterator[Problem]:
    """Find a ProctrackType that loses processes of a job."""
    settings = site.slurm.settings
    if settings.plugins("ProctrackType", "proctrack") not in ((), ("cgroup",)):
        yield Problem(
            "warning",
            f"ProctrackType={settings.get('ProctrackType')}: processes that leave a job's"
            " session stay on its GPUs",
            "proctrack/cgroup",
            "ProctrackType=proctrack/cgroup",
        )


def missing_line_problem(severity: Severity, line: ConfLine) -> Problem:
    """Return the problem for a line that slurm.conf lacks."""
    found = f"{line.key}={line.instead_of}" if line.instead_of else f"{line.key} is not set"
    return Problem(severity, found, line.value, line.text)
