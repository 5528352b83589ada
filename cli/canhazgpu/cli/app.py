"""What every command gets: where its configuration, ledger, probe and clock come from.

Nothing heavy is imported here; each factory imports its adapter when it is called.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from canhazgpu.node.caller import Caller, this_caller

if TYPE_CHECKING:
    from canhazgpu.config import Effective
    from canhazgpu.config.schema import SlurmConfig, StoreConfig, ValidationConfig
    from canhazgpu.ledger.connect import Role
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.people.wait import Progress
    from canhazgpu.probe.port import GpuProbe
    from canhazgpu.status.jobs import JobLookup


def open_probe(node: str, validation: ValidationConfig) -> GpuProbe:
    """Return the probe of this node."""
    from canhazgpu.probe.node_probe import NodeProbe  # noqa: PLC0415 - only some commands scan
    from canhazgpu.schedulers.slurm.cgroup import job_of_cgroup  # noqa: PLC0415

    return NodeProbe(node, validation, job_of_cgroup)


def open_ledger(store: StoreConfig, role: Role) -> Ledger:
    """Return the ledger in the store."""
    from canhazgpu.ledger.redis_ledger import RedisLedger  # noqa: PLC0415 - only some need it

    return RedisLedger(store, role)


def open_job_lookup(slurm: SlurmConfig, environ: Mapping[str, str]) -> JobLookup:
    """Return what knows the names and ends of Slurm's jobs."""
    from canhazgpu.schedulers.slurm.lookup import SqueueLookup  # noqa: PLC0415 - rarely needed

    return SqueueLookup(slurm, environ)


def open_progress() -> Progress:
    """Return what shows somebody who waits what for."""
    from canhazgpu.cli.progress import WaitProgress  # noqa: PLC0415 - few commands wait

    return WaitProgress()


def terminal_width() -> int | None:
    """Return the columns of the terminal on standard output, None where that is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@dataclass(frozen=True, slots=True)
class App:
    """The dependencies of the commands, in ``ctx.obj``; tests put their own in.

    `clock` is monotonic, in seconds. `config_file` and `overrides` are the global options.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    config_file: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    caller: Callable[[], Caller] = this_caller
    probe: Callable[[str, ValidationConfig], GpuProbe] = open_probe
    ledger: Callable[[StoreConfig, Role], Ledger] = open_ledger
    job_lookup: Callable[[SlurmConfig, Mapping[str, str]], JobLookup] = open_job_lookup
    width: Callable[[], int | None] = terminal_width
    progress: Callable[[], Progress] = open_progress
    sleep: Callable[[float], None] = time.sleep

    def effective(self, more: Mapping[str, str] | None = None) -> Effective:
        """Read the configuration in force; `more` are a command's own flags, over all.

        Raises `ConfigError`. Read when a command runs, so that help needs no configuration.
        """
        from canhazgpu.config import load  # noqa: PLC0415 - as it says

        overrides = {**self.overrides, **(more or {})}
        return load(self.environ, file=self.config_file, overrides=overrides)

    def reader(self, store: StoreConfig) -> Ledger:
        """Return the ledger, to be read."""
        from canhazgpu.ledger.connect import Role  # noqa: PLC0415 - help needs no ledger

        return self.ledger(store, Role.READ)

    def writer(self, store: StoreConfig) -> Ledger:
        """Return the ledger, to be changed too."""
        from canhazgpu.ledger.connect import Role  # noqa: PLC0415 - help needs no ledger

        return self.ledger(store, Role.WRITE)

    def with_options(self, config_file: str | None, overrides: Mapping[str, str]) -> App:
        """Return the same with the global options of the command line."""
        return replace(self, config_file=config_file, overrides=overrides)
