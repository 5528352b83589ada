"""A user without root on a host that root has not set up: a ledger of their own."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugins.ci_skips import Require
from simulated_driver import install_driver

import fake_nvml

pytestmark = pytest.mark.slow

USER = "games"
BARE_HOST = """
set -e
for directory in /run /var/lib /etc/canhazgpu; do
  if [ -d $directory ]; then mount -t tmpfs none $directory; fi
done
exec setpriv --reuid="$1" --regid="$2" --clear-groups -- "$3" -I -m canhazgpu.cli.entry "${@:4}"
"""
"""A mount namespace in which nothing of root's is set up."""
STOP_STORE = "import sys; from canhazgpu.ledger.embedded import server; server.stop(sys.argv[1])"


class PersonOnBareHost:
    """The user, with a home directory and two simulated GPUs."""

    def __init__(self, root: Path) -> None:
        account = pwd.getpwnam(USER)
        self._ids = (str(account.pw_uid), str(account.pw_gid))
        root.chmod(0o755)
        library = install_driver(root / "nvml")
        state = fake_nvml.FakeState(root / "nvml" / "state")
        state.add_node("n1", 2)
        state.set_default_node("n1")
        self.home = root / "home"
        (self.home / ".config" / "canhazgpu").mkdir(parents=True)
        self.file = self.home / ".config" / "canhazgpu" / "config.toml"
        self.file.write_text(
            f'[store]\nurl = "embedded"\n[validation]\nnvml_library = "{library}"\n'
        )
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["unshare", "--mount", "bash", "-c", BARE_HOST, "bash", *self._ids]
        return subprocess.run(
            [*command, sys.executable, *arguments],
            env={"HOME": str(self.home), "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
            check=False,
        )

    def stop_store(self) -> None:
        for store in self.home.glob(".local/state/canhazgpu/*/store"):
            subprocess.run(
                [sys.executable, "-I", "-c", STOP_STORE, store], check=True, timeout=60, user=USER
            )


@pytest.fixture
def person(require: Require) -> Iterator[PersonOnBareHost]:
    require(os.geteuid() == 0, "only root can start commands of other users")
    root = Path(tempfile.mkdtemp(prefix="chg-person-"))
    made = PersonOnBareHost(root)
    yield made
    made.stop_store()
    shutil.rmtree(root)


def test_a_user_without_root_reserves_their_gpus_in_a_ledger_of_their_own(
    person: PersonOnBareHost,
) -> None:
    reserved = person.run("reserve", "--gpus", "1", "--duration", "1h")
    assert reserved.returncode == 0, reserved.stderr
    ran = person.run("run", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert ran.returncode == 0, ran.stderr
    (node,) = json.loads(person.run("status", "--json").stdout)["nodes"]

    states = {gpu["uuid"]: gpu["state"] for gpu in node["gpus"]}
    assert sorted(states.values()) == ["available", "reserved"], node
    assert states[ran.stdout.strip()] == "available"
    (store,) = person.home.glob(".local/state/canhazgpu/*/store")
    assert store.stat().st_uid == pwd.getpwnam(USER).pw_uid


def test_config_show_says_which_defaults_are_the_users_own(person: PersonOnBareHost) -> None:
    shown = person.run("config", "show").stdout

    own = [line for line in shown.splitlines() if line.endswith("# your own default")]
    assert [line.partition(" ")[0] for line in own] == ["embedded_dir", "state_dir", "marker_dir"]
    assert f"# configuration file: {person.file}" in shown
