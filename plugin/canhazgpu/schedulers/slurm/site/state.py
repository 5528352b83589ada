"""Pure: everything that the checks look at, gathered on a node by `survey`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from canhazgpu.config.schema import Config
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm.conf.node_conf import SlurmNodeConf
from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site.layout import Layout, ScriptState

Severity = Literal["error", "warning", "ok"]


@dataclass(frozen=True, slots=True)
class Program:
    """A file that Slurm, or a script of ours, is to run; `problem` says why it cannot be."""

    path: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ConfFile:
    """Where slurm.conf was looked for; `fault` says why it could not be read."""

    path: str
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class SlurmState:
    """What Slurm's files, programs and controller say.

    `controller_settings` are the controller's settings, None where it was not asked or did not answer;
    `matches` are by key of slurm.conf what slurmd would run, in no order; `missing_commands` those
    that a hook would not find.
    """

    conf: ConfFile
    settings: Settings
    node_conf: SlurmNodeConf
    knows_node: bool
    has_constrain_devices: bool
    auto_detects: bool
    version: str | None
    controller_settings: Settings | None
    matches: dict[str, tuple[Program, ...]] = field(default_factory=dict)
    missing_commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InstalledHooks:
    """What is installed: the scripts, as they are and as they should be.

    `layout_fault` says why there is no place for them; `differences` what a script that is not the
    one of this release is; `site_scripts` are those of the site that they run. `site_calls_health_check` says
    that the site's own health check has the name of ours in it.
    """

    layout: Layout | None
    layout_fault: str | None
    scripts: dict[str, ScriptState]
    differences: dict[str, str]
    site_scripts: tuple[Program, ...]
    install_command: str
    site_calls_health_check: bool = False


@dataclass(frozen=True, slots=True)
class StateDir:
    """The node's own records: `uid` and `mode` are None where the directory is not there yet.

    `blocked_by` is the directory on the way to it that users cannot enter.
    """

    path: str
    uid: int | None = None
    mode: int | None = None
    blocked_by: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigState:
    """The configuration: who can read and who can change what root trusts.

    `file` is what the hooks read; `users_file` what everybody else reads, None where there is
    none; `python_blocked_by` what keeps users from running this Python. `changeable_paths` has, by the path that
    root trusts, what others can change of it; `invisible_to_hooks` the keys that come from where hooks do not
    look.
    """

    config: Config
    fault: str | None
    file: str | None
    is_world_readable: bool
    has_password: bool
    users_file: str | None
    users_file_blocked_by: str | None
    python_blocked_by: str | None
    invisible_to_hooks: dict[str, str]
    changeable_paths: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class HookProbeResult:
    """What a process sees that has nothing but a hook's environment.

    `fault` says why it saw nothing. `skew_s` is the store's clock minus the node's, known to
    within `skew_error_s`. `published_s` is how long ago, by the store's clock, the node's GPUs were
    published; None where they never were, or the store could not be asked.
    """

    fault: str | None = None
    gpus: tuple[GpuReading, ...] = ()
    gpu_fault: str | None = None
    store_fault: str | None = None
    skew_s: float | None = None
    skew_error_s: float = 0.0
    published_s: float | None = None


@dataclass(frozen=True, slots=True)
class SiteState:
    """A node as an administrator's check sees it."""

    node: str
    as_root: bool
    slurm: SlurmState
    installed: InstalledHooks
    config: ConfigState
    state_dir: StateDir
    hook_probe: HookProbeResult
    nvml_libraries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong: what is, what should be, and what mends it."""

    severity: Severity
    found: str
    wanted: str
    fix: str
