"""The checks of the node, its configuration and its files; pure."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.schedulers.slurm.site.state import Problem, SiteState

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
    if fault := directory.write_fault:
        yield Problem(
            "error",
            f"root cannot write to {directory.path}: {fault}; hooks grant no GPU",
            "a directory that can be written, with free space and inodes",
            f"df {directory.path}; df -i {directory.path}; or another node.state_dir",
        )
    if fault := directory.marker_fault:
        yield Problem(
            "warning",
            f"{directory.marker_dir} keeps no mark of this boot: {fault}; if {directory.path} is"
            " lost while jobs run, their GPUs look free to hooks; so do reserved and"
            " quarantined ones after a reboot without the store",
            "a directory that root can write, in another file system",
            "another node.marker_dir",
        )
    if directory.damaged:
        yield Problem(
            "error",
            f"{directory.damaged}: run and reserve fail",
            "files that only canhazgpu writes",
            f"SLURMD_NODENAME={site.node} canhazgpu-healthcheck",
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


def _config_file(site: SiteState) -> str:
    return site.config.file or "/etc/canhazgpu/config.toml"


def slurm_commands(site: SiteState) -> Iterator[Problem]:
    """Find commands that a hook would not find, or that do not run."""
    if missing := site.slurm.missing_commands:
        where = site.config.config.slurm.bin_dir or "the usual places"
        yield Problem(
            "error",
            f"{', '.join(missing)} not in {where}: a job that cannot be sent back runs unchecked",
            "all of Slurm's commands",
            f'bin_dir = "/the/directory/of/scontrol" in [slurm] of {_config_file(site)}',
        )
    for name, fault in site.slurm.broken_commands.items():
        yield Problem(
            "error",
            f"{fault}: a job that cannot be sent back runs unchecked",
            f"a {name} that runs in a hook's environment",
            f"env -i SLURM_CONF={site.slurm.conf.path} {name} --version",
        )


def controller(site: SiteState) -> Iterator[Problem]:
    """Find a controller that does not answer this node."""
    if fault := site.slurm.controller_fault:
        yield Problem(
            "warning",
            f"Slurm's controller gives no answer: {fault}",
            "an answer: hooks send jobs back through it",
            "scontrol ping; systemctl status slurmctld munge",
        )
