"""Pure: everything that the checks look at, gathered on a node by `survey`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from canhazgpu.config.schema import Config
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm.conf import SlurmFacts
from canhazgpu.schedulers.slurm.layout import Layout, State
from canhazgpu.schedulers.slurm.settings import Settings

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
class SlurmSide:
    """What Slurm's files, programs and controller say.

    `running` are the controller's settings, None where it was not asked or did not answer;
    `matches` are by key of slurm.conf what slurmd would run, in no order; `missing_commands` those
    that a hook would not find.
    """

    conf: ConfFile
    settings: Settings
    facts: SlurmFacts
    knows_node: bool
    constrains: bool
    auto_detects: bool
    version: str | None
    running: Settings | None
    matches: dict[str, tuple[Program, ...]] = field(default_factory=dict)
    missing_commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OurSide:
    """What is installed: the scripts, as they are and as they should be.

    `layout_fault` says why there is no place for them; `differences` what a script that is not the
    one of this release is; `site_scripts` are those of the site that they run. `check_called` says
    that the site's own health check has the name of ours in it.
    """

    layout: Layout | None
    layout_fault: str | None
    scripts: dict[str, State]
    differences: dict[str, str]
    site_scripts: tuple[Program, ...]
    install_command: str
    check_called: bool = False


@dataclass(frozen=True, slots=True)
class StateDir:
    """The node's own records: `uid` and `mode` are None where the directory is not there yet.

    `closed` is the directory on the way to it that users cannot enter.
    """

    path: str
    uid: int | None = None
    mode: int | None = None
    closed: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigSide:
    """The configuration: who can read and who can change what root trusts.

    `file` is what the hooks read; `users_file` what everybody else reads, None where there is
    none; `python_closed` what keeps users from running this Python. `weak` has, by the path that
    root trusts, what others can change of it; `unseen` the keys that come from where hooks do not
    look.
    """

    config: Config
    fault: str | None
    file: str | None
    file_open: bool
    has_password: bool
    users_file: str | None
    users_closed: str | None
    python_closed: str | None
    unseen: dict[str, str]
    weak: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class AsHook:
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
class Site:
    """A node as an administrator's check sees it."""

    node: str
    as_root: bool
    slurm: SlurmSide
    ours: OurSide
    config: ConfigSide
    state_dir: StateDir
    as_hook: AsHook
    nvml_libraries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong: what is, what should be, and what mends it."""

    severity: Severity
    found: str
    wanted: str
    fix: str
