"""Where things lie under the one directory of a demonstration, and what is written there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONFIG = """\
[store]
url = "embedded"
embedded_dir = "{store}"

[validation]
nvml_library = "{library}"

[slurm]
assignment = "{assignment}"

[node]
state_dir = "{root}/run/%n"
marker_dir = "{root}/served"
"""

SHELL = """\
#!/bin/sh
# A shell as a user on one of the demonstration's nodes: {root}/shell USER NODE [COMMAND...]
user=$1 node=$2
shift 2
cd "{root}/home/$user" || exit
[ $# -gt 0 ] || set -- /bin/sh -i
exec setpriv --reuid "$user" --regid "$user" --init-groups \\
    env -i TERM="${{TERM:-dumb}}" HOME="{root}/home/$user" USER="$user" PS1="$user@$node$ " \\
    {variables} CANHAZGPU_NODE_NAME="$node" FAKE_NVML_NODE="$node" "$@"
"""


@dataclass(frozen=True, slots=True)
class DemoPaths:
    """Paths only, beside those of `demo_cluster.Layout`."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / "venv"

    @property
    def config(self) -> Path:
        return self.root / "canhazgpu.toml"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def fake(self) -> Path:
        """The simulated GPUs: library, programs and state."""
        return self.root / "fake"

    @property
    def hooks(self) -> Path:
        return self.root / "slurm-hooks"

    @property
    def shell(self) -> Path:
        return self.root / "shell"

    @property
    def page_log(self) -> Path:
        """What `canhazgpu web` says, its address first."""
        return self.root / "page.log"

    @property
    def page_pid(self) -> Path:
        """The process of `canhazgpu web`, for whoever stops the demonstration."""
        return self.root / "page.pid"

    @property
    def users(self) -> Path:
        """The users that were created, for whoever stops the demonstration."""
        return self.root / "users.json"

    def write_config(self, assignment: str) -> None:
        text = CONFIG.format(
            store=self.store,
            library=self.fake / "libnvidia-ml.so.1",
            assignment=assignment,
            root=self.root,
        )
        self._replace(self.config, text, 0o644)

    def write_shell(self, variables: dict[str, str]) -> None:
        shown = " ".join(f"{name}='{value}'" for name, value in variables.items())
        self._replace(self.shell, SHELL.format(root=self.root, variables=shown), 0o755)

    def write_users(self, names: Sequence[str]) -> None:
        self._replace(self.users, json.dumps(names), 0o600)

    def read_users(self) -> list[str]:
        return list(json.loads(self.users.read_text())) if self.users.exists() else []

    def _replace(self, path: Path, text: str, mode: int) -> None:
        new = path.with_name(f".{path.name}.new")
        new.write_text(text)
        new.chmod(mode)
        new.rename(path)
