"""The texts of systemd's files for the node's agent. Nothing here writes a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from canhazgpu.templates.render import render

UNIT_DIRECTORY = "/etc/systemd/system"
TMPFILES_DIRECTORY = "/etc/tmpfiles.d"
UNITS = ("agent.service", "store.service", "tmpfiles.conf")
"""The templates."""
STORE_UNIT = "canhazgpu-store.service"


@dataclass(frozen=True, slots=True)
class UnitSettings:
    """The values for the units; all paths are absolute, and as the node knows them.

    `node` is the name of the one of several slurmd, None for the host's own. `config_file` is None
    for the default file, `store_dir` for a store that is not embedded.
    """

    python: str
    state_dir: str
    node: str | None = None
    config_file: str | None = None
    store_dir: str | None = None

    @property
    def unit(self) -> str:
        """The name of the agent's unit."""
        return f"canhazgpu-agent@{self.node}.service" if self.node else "canhazgpu-agent.service"

    @property
    def store_unit(self) -> str | None:
        """The name of the embedded store's unit, None for another store."""
        return STORE_UNIT if self.store_dir else None

    @property
    def tmpfiles_path(self) -> str:
        """The path of the entry for the directory of the node's records."""
        suffix = f"-{self.node}" if self.node else ""
        return f"{TMPFILES_DIRECTORY}/canhazgpu{suffix}.conf"


def unit_texts(settings: UnitSettings) -> dict[str, str]:
    """Return systemd's files, by their absolute paths on the node; the agent's unit is first."""
    values = {**asdict(settings), "unit": settings.unit, "store_unit": settings.store_unit}
    texts = {f"{UNIT_DIRECTORY}/{settings.unit}": render("agent.service", values)}
    if settings.store_unit:
        texts[f"{UNIT_DIRECTORY}/{settings.store_unit}"] = render("store.service", values)
    return {**texts, settings.tmpfiles_path: render("tmpfiles.conf", values)}
