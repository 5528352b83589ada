"""Gather what the checks look at: Slurm's files, its controller, and the node's own files.

Nothing here raises for what it finds: a fault becomes part of what was seen.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from canhazgpu.config.schema import SlurmConfig
from canhazgpu.errors import CanhazgpuError, ConfigError, InputError, SchedulerError
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.schedulers.slurm.conf.node_conf import (
    BOOLEAN_YES,
    ConfPairs,
    SlurmNodeConf,
    read_conf_lines,
    read_node_conf,
    read_settings,
)
from canhazgpu.schedulers.slurm.conf.settings import Settings, collect_settings, parse_show_config
from canhazgpu.schedulers.slurm.control.commands import DEFAULT_BIN_DIRS, SlurmCommands
from canhazgpu.schedulers.slurm.site.file_permissions import find_closed_to_users
from canhazgpu.schedulers.slurm.site.install import under_root
from canhazgpu.schedulers.slurm.site.layout import (
    HEALTH_CHECK,
    HEALTH_KEY,
    HOOK_KEYS,
    JOB_SCRIPT_KEYS,
    OWN_DIR,
    is_pattern,
)
from canhazgpu.schedulers.slurm.site.required_lines import HEALTH_CHECK_COMMAND
from canhazgpu.schedulers.slurm.site.state import ConfFile, Program, SlurmState, StateDir

QUERY_TIMEOUT_S = 5.0
"""Longest wait for one of Slurm's programs."""

MAX_SCRIPT_BYTES = 2**20

HOOK_COMMANDS = ("scontrol", "squeue", "scancel")
SBIN_DIRS = ("/usr/sbin", "/usr/local/sbin", "/opt/slurm/sbin", "/usr/local/slurm/sbin")

NVML_NAME = "libnvidia-ml.so.1"
NVML_DIRS = (
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
)


def find_slurm_conf(
    named: str | None, environ: Mapping[str, str], slurm_dir: str, root: Path
) -> str:
    """Return the path of slurm.conf as the node knows it, whether or not it is there.

    The one named, else ``SLURM_CONF`` (of this host, so only for its own root), else in Slurm's
    directory, else where a configless slurmd keeps it.
    """
    if named:
        return named
    own_host = root == Path("/")
    if own_host and environ.get(names.SLURM_CONF):
        return environ[names.SLURM_CONF]
    usual = f"{slurm_dir}/slurm.conf"
    present = [usual, *([names.CONFIGLESS_CONF] if own_host else [])]
    return next((path for path in present if under_root(root, Path(path)).exists()), usual)


def is_default_conf(conf: str) -> bool:
    """Tell whether Slurm's programs find this file without being told."""
    return conf in (names.DEFAULT_CONF, names.CONFIGLESS_CONF)


def collect_slurm_state(conf: str, node: str, host: str, slurm: SlurmConfig) -> SlurmState:
    """Look at Slurm as this node has it."""
    path = Path(conf)
    facts = SlurmNodeConf(node, False, (), (), None)
    settings, cgroup, fault = Settings(), Settings(), None
    try:
        facts = read_node_conf(path, node, host)
        settings = read_settings(path)
        cgroup = collect_settings(read_conf_lines(path.with_name("cgroup.conf")))
        fault = None if path.exists() else "No such file"
    except (ConfigError, OSError) as exc:
        fault = str(exc)
    commands = SlurmCommands(slurm.bin_dir, QUERY_TIMEOUT_S, {names.SLURM_CONF: conf})
    return SlurmState(
        conf=ConfFile(conf, fault),
        settings=settings,
        node_conf=facts,
        knows_node=any(_line_names_node(line, node) for line in facts.nodes),
        has_constrain_devices=cgroup.get("ConstrainDevices").lower() in BOOLEAN_YES,
        auto_detects=any("autodetect" in line for line in facts.gres),
        version=read_slurm_version(slurm.bin_dir),
        controller_settings=None if fault else read_running_settings(commands),
        matches=matched_programs(settings),
        missing_commands=find_missing_commands(slurm.bin_dir),
    )


def _line_names_node(line: ConfPairs, node: str) -> bool:
    try:
        return node in expand_hostlist(line["nodename"])
    except InputError:
        return False


def matched_programs(settings: Settings, root: Path = Path("/")) -> dict[str, tuple[Program, ...]]:
    """Return what each key of slurm.conf makes Slurm run, as the paths are on the node."""
    found = {}
    for key in (*JOB_SCRIPT_KEYS, HEALTH_KEY):
        values = settings.all(key) if key in HOOK_KEYS else (settings.get(key),)
        paths = [path for value in values if value for path in _expanded(value, root)]
        by_users = key == "TaskProlog"
        found[key] = tuple(inspect_program(path, root, by_users=by_users) for path in paths)
    return found


def _expanded(value: str, root: Path) -> Iterator[str]:
    if not value.startswith("/"):
        return
    if not is_pattern(value):
        yield value
        return
    # Every file that is matched; glob(3) leaves out names with a leading dot, and so does this.
    for path in sorted(glob.glob(str(under_root(root, Path(value))))):  # noqa: PTH207 - as Slurm does
        yield f"/{Path(path).relative_to(root)}"


def calls_our_health_check(path: str, root: Path = Path("/")) -> bool:
    """Tell whether a site's own script names our health check, in a comment apart."""
    try:
        target = under_root(root, Path(path))
        if not target.is_file():
            return False
        with target.open("rb") as stream:
            text = stream.read(MAX_SCRIPT_BYTES)
    except (OSError, ValueError):
        return False
    names_of_ours = (HEALTH_CHECK_COMMAND, f"/{OWN_DIR}/{HEALTH_CHECK}")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(b"#")]
    return any(name.encode() in line for line in lines for name in names_of_ours)


def inspect_program(path: str, root: Path = Path("/"), *, by_users: bool) -> Program:
    """Return whether a file can be run, by root or by every user."""
    target = under_root(root, Path(path))
    try:
        found = target.stat()
    except OSError as exc:
        return Program(path, f"cannot be read ({exc.strerror})")
    if not stat.S_ISREG(found.st_mode):
        return Program(path, "is no file")
    if not found.st_mode & 0o111:
        return Program(path, f"cannot be executed (mode {stat.S_IMODE(found.st_mode):o})")
    if by_users and found.st_mode & 0o005 != 0o005:
        return Program(path, f"users cannot execute (mode {stat.S_IMODE(found.st_mode):o})")
    if by_users and (closed := find_closed_to_users(target)):
        return Program(path, f"users cannot reach ({closed} is closed)")
    return Program(path)


def read_slurm_version(bin_dir: str) -> str | None:
    """Return what ``slurmd -V``, else ``scontrol --version``, says; None for no answer."""
    beside = (str(Path(bin_dir).parent / "sbin"), bin_dir) if bin_dir else ()
    asked = [
        *(("slurmd", "-V", place) for place in (*beside, *SBIN_DIRS)),
        ("scontrol", "--version", bin_dir),
    ]
    for name, option, place in asked:
        try:
            return SlurmCommands(place, QUERY_TIMEOUT_S, {}).run(name, option).strip()
        except SchedulerError:
            continue
    return None


def read_running_settings(commands: SlurmCommands) -> Settings | None:
    """Return the settings that the controller runs with, None where it gives no answer."""
    try:
        return parse_show_config(commands.run("scontrol", "show", "config"))
    except CanhazgpuError:
        return None


def find_missing_commands(bin_dir: str) -> tuple[str, ...]:
    """Return those of Slurm's commands that a hook would not find."""
    places = (bin_dir,) if bin_dir else DEFAULT_BIN_DIRS
    return tuple(
        name
        for name in HOOK_COMMANDS
        if not any(os.access(Path(place) / name, os.X_OK) for place in places)
    )


def inspect_state_dir(path: Path) -> StateDir:
    """Look at the directory of the node's records."""
    closed = find_closed_to_users(path)
    try:
        found = path.stat()
    except OSError:
        return StateDir(str(path), blocked_by=str(closed) if closed else None)
    return StateDir(
        str(path), found.st_uid, stat.S_IMODE(found.st_mode), str(closed) if closed else None
    )


def find_nvml_libraries(library_path: str = "") -> tuple[str, ...]:
    """Return where the NVML library lies, of the usual places and those of ``LD_LIBRARY_PATH``."""
    places = [*(one for one in library_path.split(":") if one.startswith("/")), *NVML_DIRS]
    found = (Path(place) / NVML_NAME for place in places)
    return tuple(dict.fromkeys(str(path) for path in found if path.exists()))
