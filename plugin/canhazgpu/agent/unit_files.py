"""Which of systemd's files an installation of the agent writes, and which are to be removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.schedulers.slurm.site.install import (
    HookFile,
    InstallStep,
    find_script_states,
    plan_install,
)
from canhazgpu.schedulers.slurm.site.installed_files import (
    as_config_error,
    read_marked,
    remove_stale_drafts,
    under_root,
)
from canhazgpu.templates.agent_units import (
    STORE_UNIT,
    TMPFILES_DIRECTORY,
    UNIT_DIRECTORY,
    UnitSettings,
    unit_texts,
)

UNIT_MODE = 0o644
PATTERNS = (
    (UNIT_DIRECTORY, "canhazgpu-agent.service"),
    (UNIT_DIRECTORY, "canhazgpu-agent@*.service"),
    (UNIT_DIRECTORY, STORE_UNIT),
    (TMPFILES_DIRECTORY, "canhazgpu.conf"),
    (TMPFILES_DIRECTORY, "canhazgpu-*.conf"),
)
"""Where the files of any installation are, an agent's units before the store's."""


@dataclass(frozen=True, slots=True)
class UnitFile:
    """An installed file of systemd's; `text` is None for one that canhazgpu did not install."""

    target: Path
    text: str | None

    @property
    def is_unit(self) -> bool:
        """Tell whether it is a unit, and no entry of tmpfiles.d."""
        return self.target.suffix == ".service"


def plan_unit_files(settings: UnitSettings, root: Path) -> tuple[InstallStep, ...]:
    """Return what is to be written; raises `ConfigError` where a file is not canhazgpu's."""
    texts = unit_texts(settings)
    files = [HookFile(Path(path), text, UNIT_MODE) for path, text in texts.items()]
    advice = "move it away; a change of an installed unit goes into a drop-in ('systemctl edit')"
    return plan_install(files, find_script_states(files, root), root, advice)


def installed_unit_files(root: Path) -> list[UnitFile]:
    """Return every file with a name of these, below the root."""
    return [
        UnitFile(target, read_marked(target))
        for directory, pattern in PATTERNS
        for target in _matches(under_root(root, Path(directory)), pattern)
    ]


def superseded_files(settings: UnitSettings, root: Path) -> list[UnitFile]:
    """Return the store's installed unit, where the store is no embedded one any more."""
    return [
        one
        for one in installed_unit_files(root)
        if one.target.name == STORE_UNIT and one.text is not None and not settings.store_unit
    ]


def changes_only_program(step: InstallStep) -> bool:
    """Return whether the unit that is installed differs in the program that it starts alone."""
    before = read_marked(step.target)
    return before is not None and _other_lines(before) == _other_lines(step.file.text)


def _other_lines(text: str) -> list[str]:
    left_out = ("#", "ExecStart=", "ExecReload=")
    return [line for line in text.splitlines() if not line.startswith(left_out)]


def _matches(directory: Path, pattern: str) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from sorted(directory.glob(pattern))


def remove_unit_files(files: list[UnitFile]) -> None:
    """Remove the files; raises `ConfigError` if one cannot be removed."""
    with as_config_error():
        for one in files:
            remove_stale_drafts(one.target)
            one.target.unlink(missing_ok=True)
