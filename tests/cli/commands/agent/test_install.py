"""`canhazgpu agent install` and `uninstall`: the files, systemd's part, and the agent itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from canhazgpu.agent.client import call
from canhazgpu.agent.wire.interface import STATUS
from canhazgpu.cli.app import App
from canhazgpu.cli.main import cli
from canhazgpu.cli.version import VERSION

from .conftest import SystemdHost

slow = pytest.mark.slow
AGENT = "canhazgpu-agent.service"
STORE = "canhazgpu-store.service"


def run(*args: str | Path, path: Path) -> Result:
    """Run the command where `path` has all programs."""
    app = App(environ={"PATH": str(path)})
    return CliRunner().invoke(cli, [str(one) for one in args], obj=app)


def files(root: Path) -> dict[str, int]:
    return {
        str(one.relative_to(root)): stat.S_IMODE(one.stat().st_mode)
        for one in root.rglob("*")
        if one.is_file()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root installs an agent")
    return tmp_path / "image"


@slow
def test_it_installs_starts_and_waits_for_the_agent(host: SystemdHost) -> None:
    done = host.run("agent", "install", "--json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["agent"] == {"node": "n1", "release": VERSION, "pid": host.pid}
    assert call(host.directory / "state", STATUS)["pid"] == host.pid
    assert [one["action"] for one in found["files"]] == ["created", "created"]
    assert host.calls() == [
        f"is-active --quiet {AGENT}",
        "daemon-reload",
        f"enable {AGENT}",
        f"restart {AGENT}",
    ]
    assert stat.S_IMODE(host.unit.stat().st_mode) == 0o644
    assert f'Environment="CANHAZGPU_CONFIG={host.config}"' in host.unit.read_text()
    assert (host.directory / "state").stat().st_uid == 0


@slow
def test_a_second_installation_leaves_the_agent_alone(host: SystemdHost) -> None:
    host.run("agent", "install")
    before = host.pid
    host.calls()

    done = host.run("agent", "install", "--json")

    assert done.returncode == 0, done.stderr
    assert [one["action"] for one in json.loads(done.stdout)["files"]] == ["unchanged"] * 2
    assert host.pid == before
    assert host.calls()[-1] == f"start {AGENT}"


@slow
def test_a_changed_unit_and_a_dead_agent_are_started_anew(host: SystemdHost) -> None:
    host.run("agent", "install")
    first = host.pid
    host.unit.write_text(host.unit.read_text().replace("RestartSec=1", "RestartSec=9"))

    assert host.run("agent", "install").returncode == 0
    second = host.pid
    os.kill(second, signal.SIGKILL)
    done = host.run("agent", "install")

    assert done.returncode == 0, done.stderr
    assert len({first, second, host.pid}) == 3
    assert f"release {VERSION}, PID {host.pid}" in done.stdout


@slow
def test_an_agent_whose_program_alone_differs_becomes_that_one(host: SystemdHost) -> None:
    host.run("agent", "install")
    before = host.pid
    host.calls()
    # As an installation from another environment has left it.
    host.unit.write_text(host.unit.read_text().replace(sys.executable, "/opt/old/bin/python"))

    done = host.run("agent", "install")

    assert done.returncode == 0, done.stderr
    assert host.calls()[-1] == f"reload {AGENT}"
    found = call(host.directory / "state", STATUS, wait_s=60)
    assert (found["pid"], found["executions"]) == (before, 1)
    assert f"release {VERSION}, PID {before}" in done.stdout


@slow
def test_one_that_cannot_become_it_stays_and_the_installation_fails(host: SystemdHost) -> None:
    host.run("agent", "install")
    host.unit.write_text(host.unit.read_text().replace(sys.executable, "/opt/old/bin/python"))
    (host.bin / "fails").write_text("reload")

    done = host.run("agent", "install")

    assert done.returncode == 8
    assert f"systemctl reload {AGENT}" in done.stderr
    found = call(host.directory / "state", STATUS, wait_s=60)
    assert (found["pid"], found["executions"]) == (host.pid, 0)


OTHER_RELEASE = """
import json, os, socket, sys
path, release = sys.argv[1:]
listening = socket.socket(socket.AF_UNIX)
os.path.exists(path) and os.unlink(path)
listening.bind(path)
listening.listen()
print("ready", flush=True)
while True:
    connection, _ = listening.accept()
    connection.recv(65536)
    answer = {"parameters": {"release": release, "pid": os.getpid(), "node": "n1"}}
    connection.sendall(json.dumps(answer).encode() + bytes(1))
"""


@slow
@pytest.mark.parametrize(("release", "verb"), [("0.0.1", "restart"), (VERSION, "start")])
def test_an_agent_of_another_release_is_started_anew(
    host: SystemdHost, release: str, verb: str
) -> None:
    host.run("agent", "install")
    os.kill(host.pid, signal.SIGKILL)
    host.calls()
    people = host.directory / "state" / "agent" / "agent.sock"
    command = [sys.executable, "-c", OTHER_RELEASE, str(people), release]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (host.bin / "pid").write_text(str(other.pid))

        done = host.run("agent", "install")
        other.kill()

    assert done.returncode == 0, done.stderr
    assert host.calls()[-1] == f"{verb} {AGENT}"
    assert f"release {VERSION}, PID {host.pid}" in done.stdout
    if verb == "start":
        (host.bin / "pid").unlink()


@slow
def test_an_agent_that_the_unit_did_not_start_is_named(host: SystemdHost) -> None:
    host.run("agent", "install")
    pid = host.pid
    (host.bin / "pid").rename(host.bin / "kept")
    host.unit.unlink()

    done = host.run("agent", "install")

    (host.bin / "kept").rename(host.bin / "pid")
    assert done.returncode == 2
    assert f"process {pid}" in done.stderr
    assert not host.unit.exists()


@slow
def test_a_unit_that_does_not_start_is_an_error_with_the_reason(host: SystemdHost) -> None:
    (host.bin / "fails").write_text("restart")

    done = host.run("agent", "install")

    assert done.returncode == 8
    assert "Job for the unit failed" in done.stderr
    assert f"journalctl -u {AGENT}" in done.stderr


@slow
def test_without_systemd_it_says_what_to_do(host: SystemdHost) -> None:
    done = host.run("agent", "install", systemd=False)

    assert done.returncode == 0, done.stderr
    assert host.calls() == []
    assert "systemd does not run here" in done.stdout
    assert f"'CANHAZGPU_CONFIG={host.config}'" in done.stdout
    assert "canhazgpu.cli.main agent run" in done.stdout


@slow
def test_it_is_removed_as_it_was_installed(host: SystemdHost) -> None:
    host.run("agent", "install")
    record = host.directory / "state" / "jobs" / "7.json"
    record.parent.mkdir()
    record.touch()
    host.calls()

    done = host.run("agent", "uninstall")

    assert done.returncode == 0, done.stderr
    assert host.calls() == [f"disable --now {AGENT}", "daemon-reload"]
    assert not host.unit.exists() and not host.tmpfiles.exists()
    assert not (host.bin / "pid").exists()
    assert not (host.directory / "state" / "agent" / "hooks.sock").exists()
    assert record.exists()
    again = host.run("agent", "uninstall", "--json")
    assert (again.returncode, json.loads(again.stdout)["files"]) == (0, [])


@slow
def test_an_embedded_store_has_its_unit_while_it_is_one(host: SystemdHost) -> None:
    directory = host.directory / "a 100% store"
    host.configure(url="embedded", embedded_dir=str(directory))
    unit = host.unit.with_name(STORE)

    done = host.run("agent", "install")
    assert done.returncode == 0, done.stderr
    assert f"enable {STORE} {AGENT}" in (calls := host.calls())
    assert calls.index(f"start {STORE}") < calls.index(f"restart {AGENT}")
    assert f"PIDFile={host.directory}/a 100%% store/server.pid" in unit.read_text()

    host.configure(url="redis://localhost:1/0")
    assert host.run("agent", "install").returncode == 0
    assert f"disable --now {STORE}" in host.calls()
    assert not unit.exists()
    assert STORE not in host.unit.read_text()


def test_an_image_gets_files_and_no_systemctl_of_this_host(root: Path, tmp_path: Path) -> None:
    done = run("agent", "install", "--root", root, path=tmp_path)

    assert done.exit_code == 0, done.output
    assert files(root) == {
        f"etc/systemd/system/{AGENT}": 0o644,
        "etc/tmpfiles.d/canhazgpu.conf": 0o644,
    }
    assert f"systemctl --root={root} enable {AGENT}" in done.stdout


@pytest.mark.skipif(not shutil.which("systemctl"), reason="systemd is not installed here")
def test_an_image_has_the_units_enabled_by_the_real_systemctl(root: Path) -> None:
    path = Path(shutil.which("systemctl") or "").parent
    link = root / "etc/systemd/system/multi-user.target.wants" / AGENT

    installed = run("agent", "install", "--root", root, "--json", path=path)
    assert installed.exit_code == 0, installed.output
    assert json.loads(installed.stdout)["commands"] == [f"systemctl --root={root} enable {AGENT}"]
    assert str(link.readlink()) == f"/etc/systemd/system/{AGENT}"

    removed = run("agent", "uninstall", "--root", root, path=path)
    assert removed.exit_code == 0, removed.output
    assert not link.is_symlink()
    assert files(root) == {}


def test_each_of_several_nodes_has_a_unit(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[node]\nstate_dir = "/run/canhazgpu/%n"\n')

    for node in ("g1", "g2"):
        done = run(
            "--config", config, "agent", "install", "--root", root, "--node", node, path=tmp_path
        )
        assert done.exit_code == 0, done.output

    assert set(files(root)) == {
        *(f"etc/systemd/system/canhazgpu-agent@{node}.service" for node in ("g1", "g2")),
        *(f"etc/tmpfiles.d/canhazgpu-{node}.conf" for node in ("g1", "g2")),
    }
    unit = (root / "etc/systemd/system/canhazgpu-agent@g2.service").read_text()
    assert "agent run --node g2\n" in unit
    entry = (root / "etc/tmpfiles.d/canhazgpu-g2.conf").read_text()
    assert "d /run/canhazgpu/g2 0755 root root -" in entry


@pytest.mark.parametrize("node", ["../x", "a b", "", "-x", "a/b", "a\n"])
def test_what_is_no_name_of_a_node_is_refused(root: Path, tmp_path: Path, node: str) -> None:
    done = run("agent", "install", "--root", root, f"--node={node}", path=tmp_path)

    assert (done.exit_code, files(root)) == (2, {})


def test_a_file_of_others_is_left_alone(root: Path, tmp_path: Path) -> None:
    unit = root / "etc/systemd/system" / AGENT
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")

    installed = run("agent", "install", "--root", root, path=tmp_path)
    removed = run("agent", "uninstall", "--root", root, path=tmp_path)

    assert installed.exit_code == 2
    assert f"{unit} was not installed by canhazgpu" in installed.output
    assert f"left {unit}" in removed.stdout
    assert files(root).keys() == {f"etc/systemd/system/{AGENT}"}


def test_a_dry_run_changes_nothing(root: Path, tmp_path: Path) -> None:
    done = run("agent", "install", "--root", root, "--dry-run", path=tmp_path)

    assert done.exit_code == 0
    assert "+Restart=always" in done.stdout
    assert not root.exists()
