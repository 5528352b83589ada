"""The state of a node that the checks examine, filled by `collect`; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from canhazgpu.config.schema import Config
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.node_conf import SlurmNodeConf
from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.conf.slurmd_answer import SlurmdAnswer
from canhazgpu.schedulers.slurm.job_check.task_view import TaskView
from canhazgpu.schedulers.slurm.site.layout import Layout, ScriptState

Severity = Literal["error", "warning", "ok"]


@dataclass(frozen=True, slots=True)
class Program:
    """A file that Slurm or a script of canhazgpu runs; `problem` says why that fails."""

    path: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ConfFile:
    """The path of slurm.conf; `fault` says why it could not be read."""

    path: str
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class SlurmState:
    """The state of Slurm's files, programs and controller.

    `controller_settings` are the controller's settings, None if it was not asked or did not
    answer. `programs` are, by key of slurm.conf, what slurmd would run, in no order.
    `missing_commands` are those that a hook would not find. `slurmd_devices` are the node's GPUs as
    slurmd reads them, None if it was not asked, or gave the `slurmd_fault`. The hooks in the
    settings have absolute paths; `relative_hooks` are the lines of slurm.conf that do not.
    `multi_node_jobs` is True if jobs of this site can have several nodes. `broken_commands` are
    those that do not run, with the reason. `controller_fault` says why the controller gave no
    answer, None if it did; `controller_knows_node` is None where that is not known. `task_view`
    says which of the node's files tasks do not see. `accounting_fault` says why Slurm's accounting
    gave no answer, None if it did or was not asked.
    """

    conf: ConfFile
    settings: Settings
    node_conf: SlurmNodeConf
    knows_node: bool
    has_constrain_devices: bool
    version: str | None
    controller_settings: Settings | None
    programs: dict[str, tuple[Program, ...]] = field(default_factory=dict)
    missing_commands: tuple[str, ...] = ()
    slurmd_devices: tuple[GpuDevice, ...] | None = None
    slurmd_fault: str | None = None
    relative_hooks: tuple[str, ...] = ()
    multi_node_jobs: bool = False
    broken_commands: dict[str, str] = field(default_factory=dict)
    controller_fault: str | None = None
    controller_knows_node: bool | None = None
    task_view: TaskView = field(default_factory=TaskView)
    accounting_fault: str | None = None


@dataclass(frozen=True, slots=True)
class InstalledHooks:
    """The installed scripts, and how they differ from those of this release.

    `layout_fault` says why there is no location for them. `differences` has, by path, how a script
    differs. `site_scripts` are the site's scripts that they run. `site_calls_health_check` is True
    if the site's own health check contains the name of canhazgpu's. `chained_scripts` are those of
    canhazgpu's scripts that another one of them runs.
    """

    layout: Layout | None
    layout_fault: str | None
    scripts: dict[str, ScriptState]
    differences: dict[str, str]
    site_scripts: tuple[Program, ...]
    install_command: str
    site_calls_health_check: bool = False
    chained_scripts: tuple[Program, ...] = ()


@dataclass(frozen=True, slots=True)
class StateDir:
    """The directory of the node's records; `uid` and `mode` are None if it does not exist yet.

    `blocked_by` is the directory above it that users cannot enter. `slurmd_answer` is slurmd's
    answer on record. `write_fault` says why root cannot write there, and `damaged` which of its
    files cannot be read or was lost, and why. `marker_fault` says why `marker_dir` keeps no mark of
    the boot that was served.
    """

    path: str
    uid: int | None = None
    mode: int | None = None
    blocked_by: str | None = None
    slurmd_answer: SlurmdAnswer | None = None
    write_fault: str | None = None
    damaged: str | None = None
    marker_dir: str = ""
    marker_fault: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigState:
    """The configuration, and who can read or change the files that root trusts.

    `file` is the file of the hooks, `users_file` that of all others, None if there is none.
    `python_blocked_by` is what prevents users from running this Python. `changeable_paths` has, by
    trusted path, the paths that others can change. `invisible_to_hooks` has, by configuration key,
    an origin that hooks do not read. `exposed_login_file` is store.login_file if everybody
    can read it; `shared_login` says who else has the hooks' login.
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
    exposed_login_file: str = ""
    shared_login: str = ""


@dataclass(frozen=True, slots=True)
class HookProbeResult:
    """What a process sees that has a hook's environment and nothing else.

    `fault` says why it failed. `store_fault` says why the store takes no changes, and `store_step`
    what to do about it. `skew_s` is the store's clock minus the node's, with an error of at most
    `skew_error_s`; `answer_s` is the shortest time of an answer. `published_s` is how long ago, by
    the store's clock, the node's GPUs were published; None if they never were, or the store did not
    answer. `known_gpus` is how many GPUs the node had. `evicts` is the store's policy, "" where it
    evicts nothing, and `unsaved` says why its data are not on its disk; None where not known.
    `clients_mb` is what all its clients may have of its memory, 0 for any amount. `max_clients` is
    how many connections it takes, and `known_nodes` how many nodes the ledger has.
    """

    fault: str | None = None
    gpus: tuple[GpuReading, ...] = ()
    gpu_fault: str | None = None
    store_fault: str | None = None
    skew_s: float | None = None
    skew_error_s: float = 0.0
    published_s: float | None = None
    store_step: str = ""
    answer_s: float | None = None
    known_gpus: int = 0
    evicts: str | None = None
    unsaved: str | None = None
    clients_mb: float | None = None
    max_clients: int | None = None
    known_nodes: int = 0


@dataclass(frozen=True, slots=True)
class AgentState:
    """The node's agent; `release` is its release, None where none answers, and `wanted` this one.

    `fault` says why a socket in its place gives no answer. `unit` is the name of its installed
    unit, "" where there is none. `not_taken` says why it has not become what is installed, "" where
    nothing keeps it from that.
    """

    wanted: str = ""
    release: str | None = None
    fault: str | None = None
    unit: str = ""
    not_taken: str = ""


@dataclass(frozen=True, slots=True)
class SiteState:
    """The state of a node, for ``canhazgpu hooks check``."""

    node: str
    as_root: bool
    slurm: SlurmState
    installed: InstalledHooks
    config: ConfigState
    state_dir: StateDir
    hook_probe: HookProbeResult
    nvml_libraries: tuple[str, ...] = ()
    agent: AgentState = field(default_factory=AgentState)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: what was found, what is wanted, and what fixes it."""

    severity: Severity
    found: str
    wanted: str
    fix: str
