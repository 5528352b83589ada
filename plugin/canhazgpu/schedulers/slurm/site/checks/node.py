"""Pure: the checks of the node, its configuration, its GPUs and Redis."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.errors import InputError
from canhazgpu.gpu.health import count_text
from canhazgpu.schedulers.slurm.conf.device_mapping import gpus_at_positions
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.gres_line import gres_lines_advice
from canhazgpu.schedulers.slurm.conf.slurmd_answer import (
    SlurmdAnswer,
    agreed_devices,
    conf_stamps,
    driver_gpus,
)
from canhazgpu.schedulers.slurm.site.state import Problem, SiteState

MAX_SKEW_S = 1.0
GROUP_OR_OTHER_WRITE = 0o022


def root(site: SiteState) -> Iterator[Problem]:
    """Find a check that does not run as root, and so sees less than hooks do."""
    if not site.as_root:
        yield Problem(
            "warning",
            "not run as root: what is said of the store, the GPUs and files is not what hooks see",
            "root",
            "sudo canhazgpu hooks check",
        )


def config(site: SiteState) -> Iterator[Problem]:
    """Find a configuration that hooks cannot read, or values that they do not see."""
    if fault := site.config.fault:
        yield Problem(
            "error", fault, "a configuration that hooks can read", "canhazgpu config show"
        )
    for key, origin in site.config.invisible_to_hooks.items():
        yield Problem(
            "warning",
            f"{key} comes from {origin}, which Slurm's hooks do not see",
            f"a value in {site.config.file or '/etc/canhazgpu/config.toml'}",
            f"move {key} into the file",
        )


def config_secret(site: SiteState) -> Iterator[Problem]:
    """Find a password that everybody can read."""
    config = site.config
    if config.has_password and config.is_world_readable and config.file:
        yield Problem(
            "error",
            f"{config.file} holds the store's password and everybody can read it",
            "mode 600, and another file without a password for users",
            f"chmod 600 {config.file}",
        )
    if config.exposed_login_file:
        yield Problem(
            "error",
            f"everybody can read the store's password in {config.exposed_login_file}",
            "mode 600, or 640 with the group of those who reserve GPUs",
            f"chmod 600 {config.exposed_login_file}",
        )


def config_readable(site: SiteState) -> Iterator[Problem]:
    """Find a configuration that users cannot read."""
    config = site.config
    if config.users_file and config.users_file_blocked_by:
        yield Problem(
            "warning",
            f"users cannot read {config.users_file}: {config.users_file_blocked_by} is closed to"
            " them",
            "a file without a password, with mode 644",
            f"chmod o+rX {config.users_file_blocked_by}"
            if not (config.has_password and config.users_file == config.file)
            else "move the password into a file of the hooks' own: see 'Passwords' in install.md",
        )


def users_python(site: SiteState) -> Iterator[Problem]:
    """Find a Python that users cannot run."""
    if closed := site.config.python_blocked_by:
        yield Problem(
            "warning",
            f"users cannot run canhazgpu: {closed} is closed to them",
            "a Python and an environment that everybody can run",
            "/usr/bin/python3 -m venv /opt/canhazgpu, and install into it",
        )


def trusted_paths(site: SiteState) -> Iterator[Problem]:
    """Find trusted paths of root that others can change."""
    for path, changeable in site.config.changeable_paths.items():
        paths = " ".join(changeable)
        yield Problem(
            "error",
            f"others than root can change {path} through {', '.join(changeable)}",
            "owned by root, for root alone to write",
            f"chown root: {paths}; chmod go-w {paths}",
        )


def state_dir(site: SiteState) -> Iterator[Problem]:
    """Find a directory of records that others can change, or that tasks cannot read."""
    directory = site.state_dir
    if directory.blocked_by:
        yield Problem(
            "error",
            f"users cannot enter {directory.blocked_by}: no task learns its GPUs",
            "mode 755",
            f"chmod 755 {directory.blocked_by}",
        )
    if directory.mode is None or directory.uid is None:
        return  # the first prolog creates it
    if directory.uid != 0 or directory.mode & GROUP_OR_OTHER_WRITE:
        yield Problem(
            "error",
            f"{directory.path} belongs to uid {directory.uid} with mode {directory.mode:o}",
            "root's, with mode 755",
            f"chown root: {directory.path}; chmod 755 {directory.path}",
        )


def hook_environment(site: SiteState) -> Iterator[Problem]:
    """Find a canhazgpu that does not run in a hook's environment."""
    if fault := site.hook_probe.fault:
        yield Problem("error", fault, "an answer", "canhazgpu hooks install, with this Python")


def gpus(site: SiteState) -> Iterator[Problem]:
    """Find GPUs that hooks cannot read."""
    if site.slurm.knows_node and not _has_gpus(site):
        return
    if fault := site.hook_probe.gpu_fault:
        library = site.nvml_libraries[0] if site.nvml_libraries else "/path/to/libnvidia-ml.so.1"
        yield Problem(
            "error",
            f"{fault} (as slurmd's hooks run: without LD_LIBRARY_PATH)",
            "a library that loads",
            f'nvml_library = "{library}" in [validation] of {_config_file(site)}',
        )


def _config_file(site: SiteState) -> str:
    return site.config.file or "/etc/canhazgpu/config.toml"


def _has_gpus(site: SiteState) -> bool:
    """Tell whether Slurm's files give the node any GPUs."""
    try:
        return bool(site.slurm.node_conf.gpu_count or site.slurm.node_conf.gpu_devices)
    except InputError:
        return True


def gpu_count(site: SiteState) -> Iterator[Problem]:
    """Find GPUs of Slurm that the driver does not show or that cannot be told apart, and others."""
    seen = site.hook_probe.gpus
    wanted = "as many GPUs in Gres=, gres.conf and 'nvidia-smi -L'"
    try:
        devices = _slurms_devices(site)
        assigned = gpus_at_positions(range(len(devices)), devices, seen)
    except InputError as exc:
        yield Problem("error", str(exc), wanted, gres_lines_advice(site.node, seen))
        return
    if len(assigned) < len(seen):
        yield Problem(
            "warning",
            f"Slurm counts {len(assigned)} GPUs on {site.node}, the driver shows"
            f" {count_text(seen)}",
            wanted,
            gres_lines_advice(site.node, seen, {gpu.uuid for gpu in assigned}),
        )


def _slurms_devices(site: SiteState) -> tuple[GpuDevice, ...]:
    """Return the GPUs in Slurm's order, as a hook would, but with slurmd's answer of now.

    Where slurmd detects GPUs, only the answer on record counts, as for a hook.
    """
    node_conf, seen = site.slurm.node_conf, site.hook_probe.gpus
    answer = site.state_dir.slurmd_answer
    if site.slurm.slurmd_devices is not None and not node_conf.gres_conf.autodetect:
        stamps, driver = conf_stamps(node_conf), driver_gpus(seen)
        answer = SlurmdAnswer(stamps, driver, None, "", 0.0, site.slurm.slurmd_devices)
    return agreed_devices(node_conf, seen, answer)


def store(site: SiteState) -> Iterator[Problem]:
    """Find a Redis that hooks cannot reach."""
    if fault := site.hook_probe.store_fault:
        yield Problem("error", fault, "a store that answers", "redis-cli -u STORE_URL ping")


def store_login(site: SiteState) -> Iterator[Problem]:
    """Find a login by which another node could change this node's records."""
    if site.config.shared_login:
        yield Problem(
            "warning",
            site.config.shared_login,
            "a Redis user for each node, a reader for users",
            "canhazgpu store acl: see 'Passwords' in install.md",
        )


def clock(site: SiteState) -> Iterator[Problem]:
    """Find a clock that differs from Redis' clock."""
    skew_s = site.hook_probe.skew_s
    if skew_s is not None and abs(skew_s) - site.hook_probe.skew_error_s > MAX_SKEW_S:
        ahead = "behind" if skew_s > 0 else "ahead of"
        yield Problem(
            "warning",
            f"this node's clock is {abs(skew_s):.1f} s {ahead} the store's",
            f"at most {MAX_SKEW_S:g} s apart",
            "systemctl restart chronyd, on the node or on the store's host",
        )


def slurm_commands(site: SiteState) -> Iterator[Problem]:
    """Find commands that a hook would not find."""
    if missing := site.slurm.missing_commands:
        where = site.config.config.slurm.bin_dir or "the usual places"
        yield Problem(
            "error",
            f"{', '.join(missing)} not in {where}: a job that cannot be sent back runs unchecked",
            "all of Slurm's commands",
            f'bin_dir = "/the/directory/of/scontrol" in [slurm] of {_config_file(site)}',
        )
