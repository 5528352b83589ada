"""A shared workstation: an agent, the embedded store, and users who have set up nothing."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hosts.agent_node import AgentNode, make_agent_node
from plugins.ci_skips import Require

pytestmark = pytest.mark.slow

GAMES, NEWS = (pwd.getpwnam(name).pw_uid for name in ("games", "news"))
STOP_STORE = "import sys; from canhazgpu.ledger.embedded import server; server.stop(sys.argv[1])"
SHOW_GPUS = ("sh", "-c", "echo $CUDA_VISIBLE_DEVICES")


class Workstation:
    """The agent's node, and the directory of its embedded store."""

    def __init__(self, node: AgentNode, store: Path) -> None:
        self.node = node
        self.store = store

    def states(self, user: int) -> list[tuple[str, str | None]]:
        """Each GPU's state and holder, as this user is shown them."""
        (found,) = json.loads(self.node.run("status", "--json", user=user).stdout)["nodes"]
        held = [(gpu["state"], gpu["reservation"]) for gpu in found["gpus"]]
        return [(state, one and one["user"]) for state, one in held]

    def store_answers(self, uid: int, *words: str) -> str:
        """What the store says to a command of this user, who has no password."""
        code = (
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "s.sendall(' '.join(sys.argv[2:]).encode()+b'\\r\\n'); print(s.recv(4096).decode())"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, str(self.store / "server.sock"), *words],
            user=uid,
            group=uid,
            extra_groups=(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout


@pytest.fixture
def workstation(require: Require) -> Iterator[Workstation]:
    require(os.geteuid() == 0, "only root may run an agent")
    with tempfile.TemporaryDirectory(prefix="chg-workstation-") as name:
        Path(name).chmod(0o755)
        store = Path(name) / "store"
        with make_agent_node(2, store={"url": "embedded", "embedded_dir": str(store)}) as node:
            yield Workstation(node, store)
            node.agent.wait_until_idle()
            assert node.agent.status()["faults"] == []
        subprocess.run([sys.executable, "-I", "-c", STOP_STORE, store], check=True, timeout=60)


def test_users_share_the_gpus_and_touch_nothing_of_each_other(workstation: Workstation) -> None:
    run = workstation.node.run
    reserved = run("reserve", "--gpus", "1", "--duration", "1h", user=NEWS)
    assert reserved.returncode == 0, reserved.stderr

    assert run("release", user=GAMES).returncode == 0
    assert run("release", "--gpu-ids", "0", user=GAMES).returncode != 0
    assert run("admin", "release", "--gpu-ids", "0", user=GAMES).returncode == 2

    assert workstation.states(GAMES) == [("reserved", "news"), ("available", None)]
    ran = run("run", "--gpus", "1", "--", *SHOW_GPUS, user=GAMES)
    (news_gpu,) = re.findall(r"CUDA_VISIBLE_DEVICES=(\S+)", reserved.stdout)
    assert ran.stdout.startswith("GPU-") and ran.stdout.strip() != news_gpu
    both = run("run", "--gpus", "2", "--nonblock", "--", "true", user=GAMES)
    assert both.returncode == 75
    assert run("release", user=NEWS).returncode == 0
    assert workstation.states(NEWS) == [("available", None)] * 2


def test_two_users_who_ask_at_once_get_different_gpus(workstation: Workstation) -> None:
    with ThreadPoolExecutor() as pool:
        asked = [
            pool.submit(workstation.node.run, "reserve", "--gpus", "1", "--nonblock", user=user)
            for user in (GAMES, NEWS, GAMES, NEWS)
        ]
        statuses = [one.result().returncode for one in asked]

    assert sorted(statuses) == [0, 0, 75, 75]
    assert [state for state, _ in workstation.states(NEWS)] == ["reserved", "reserved"]


def test_the_store_is_roots_alone_to_write(workstation: Workstation) -> None:
    assert workstation.node.run("reserve", "--gpus", "1", user=NEWS).returncode == 0

    assert "NOPERM" in workstation.store_answers(GAMES, "FLUSHALL")
    assert "NOPERM" in workstation.store_answers(GAMES, "SET", "canhazgpu:x", "1")
    assert (workstation.store / "secret").stat().st_mode & 0o077 == 0
    assert workstation.store.stat().st_mode & 0o022 == 0
    assert workstation.states(GAMES)[0] == ("reserved", "news")


def test_a_killed_store_is_started_again_by_the_next_command(workstation: Workstation) -> None:
    assert workstation.node.run("reserve", "--gpus", "1", user=NEWS).returncode == 0
    os.kill(int((workstation.store / "server.pid").read_text()), signal.SIGKILL)

    assert workstation.node.run("reserve", "--gpus", "1", user=GAMES).returncode == 0
    assert workstation.states(GAMES) == [("reserved", "news"), ("reserved", "games")]
    assert "PONG" in workstation.store_answers(NEWS, "PING")
