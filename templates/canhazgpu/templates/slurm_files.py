"""The texts of the files for Slurm. Nothing here writes a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from canhazgpu.config.schema import DEFAULT_COMMAND_TIMEOUT_S, SlurmConfig
from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site.conf_text import conf_text
from canhazgpu.schedulers.slurm.site.health_lines import HEALTH_CHECK_COMMAND, health_lines
from canhazgpu.schedulers.slurm.site.layout import Layout, ScriptLocation, plan_layout
from canhazgpu.schedulers.slurm.site.required_lines import hook_limit_s, needed_lines
from canhazgpu.templates.render import render

DEFAULT_SLURM_DIR = "/etc/slurm"
DEFAULT_GPUS = 4

AGENT_SOCKET_PATH = "/agent/hooks.sock"
"""The socket at which the agent answers hooks, below the node's state directory."""

PEOPLE_SOCKET_PATH = "/agent/agent.sock"
"""The socket at which the agent answers everybody, tasks of jobs among them."""
JOB_CHECK_CLIENT = "job_check_client.py"


@dataclass(frozen=True, slots=True)
class HookSettings:
    """The values for the templates.

    `python`, `client` and `config_file` are absolute paths on the node. `client` is the program
    that asks the node's agent. `config_file` is None for the default file, `slurm_conf` None if
    Slurm's programs find it without SLURM_CONF. ``%n`` in `state_dir` stands for the node's name.
    The times are those of the configuration.
    """

    python: str
    client: str
    config_file: str | None
    state_dir: str
    hook_deadline_s: float
    command_timeout_s: float = DEFAULT_COMMAND_TIMEOUT_S
    slurm_dir: str = DEFAULT_SLURM_DIR
    gpus: int = DEFAULT_GPUS
    slurm_conf: str | None = None

    @property
    def health_check_program(self) -> str:
        """The health check program in the environment of the hooks' Python."""
        return str(PurePosixPath(self.python).with_name(HEALTH_CHECK_COMMAND))

    @property
    def job_client(self) -> str:
        """The program by which a task asks the node's agent, beside that of hooks."""
        return str(PurePosixPath(self.client).with_name(JOB_CHECK_CLIENT))

    @property
    def lines(self) -> str:
        """The lines that slurm.conf needs on a site without any of them."""
        slurm = SlurmConfig(
            hook_deadline_s=self.hook_deadline_s, command_timeout_s=self.command_timeout_s
        )
        layout = plan_layout(Settings(), self.slurm_dir, {}, {})
        needed = needed_lines(Settings(), layout, hook_limit_s(slurm), multi_node_jobs=True)
        return conf_text((*needed, *health_lines(Settings(), layout.health_check)))


HOOKS = {
    "prolog.sh": "prolog.d/canhazgpu.sh",
    "epilog.sh": "epilog.d/canhazgpu.sh",
    "task_prolog.sh": "canhazgpu/task_prolog.sh",
    "health_check.sh": "canhazgpu/health_check.sh",
}
"""The templates of the scripts, and the path of each below Slurm's directory."""

CHAINS = ("site_hook.sh", "task_prolog_chain.sh")
"""The templates of scripts that also run a script of the site."""

FRAGMENTS = {
    "slurm.conf": "slurm.conf.canhazgpu",
    "gres.conf": "gres.conf.example",
}
"""The other templates, and the file name of each rendered text."""


def hook_texts(settings: HookSettings) -> dict[str, str]:
    """Return the scripts, by their paths below Slurm's directory."""
    return {path: render_file(name, settings) for name, path in HOOKS.items()}


def fragment_texts(settings: HookSettings) -> dict[str, str]:
    """Return the example files, from which an administrator copies, by file name."""
    return {path: render_file(name, settings) for name, path in FRAGMENTS.items()}


def site_script_texts(settings: HookSettings, layout: Layout) -> dict[str, str]:
    """Return the scripts for a site, by their absolute paths on the node."""
    texts = dict(
        item for location in layout.locations for item in _location_texts(settings, location)
    )
    return {**texts, layout.health_check: render_file("health_check.sh", settings)}


def _location_texts(settings: HookSettings, location: ScriptLocation) -> Iterator[tuple[str, str]]:
    name = "task_prolog.sh" if location.key == "TaskProlog" else f"{location.key.lower()}.sh"
    yield location.script, render_file(name, settings)
    if location.chain and location.site:
        yield location.chain, chain_text(location)


def chain_text(location: ScriptLocation) -> str:
    """Return the script that also runs the site's own."""
    name = "task_prolog_chain.sh" if location.key == "TaskProlog" else "site_hook.sh"
    return render(
        name, {"key": location.key, "site": location.site, "task_prolog": location.script}
    )


def render_file(name: str, settings: HookSettings) -> str:
    """Return one rendered template."""
    known = {
        **asdict(settings),
        "health_check_program": settings.health_check_program,
        "lines": settings.lines,
        "job_client": settings.job_client,
        "socket_path": AGENT_SOCKET_PATH,
        "people_socket_path": PEOPLE_SOCKET_PATH,
    }
    return render(name, known)
