"""`release`, `extend` and `admin` over a real server, by processes of real Unix users."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from forking_python import own_interpreter
from ledger_samples import observation, uuid
from servers.private_redis import PrivateRedis

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus
from canhazgpu.ledger.owner import new_owner_token
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim, NodeView, Waiter
from canhazgpu.node.users import Rights

pytestmark = pytest.mark.slow

NODE = "n1"
RUN = "from canhazgpu.cli.main import main; main()"
READER = "reader on nopass ~* +@read +@transaction +@connection +time"
ALICE, BOB, ROOT = "nobody", "daemon", "root"


@dataclass
class Node:
    """A node that published four GPUs, seen from another one: nothing is scanned."""

    server: PrivateRedis
    ledger: RedisLedger
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def view(self) -> NodeView:
        (view,) = self.ledger.read_nodes([NODE])
        return view

    def reserve(self, user: str, *gpus: int, duration_s: float = 600.0) -> str:
        claim = Claim(
            new_owner_token("manual"),
            "manual",
            user,
            pwd.getpwnam(user).pw_uid,
            duration_s=duration_s,
        )
        answer = self.ledger.reserve_given(claim, [uuid(gpu) for gpu in gpus], observation(NODE))
        assert isinstance(answer, GrantedGpus)
        return claim.owner

    def start(self, user: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments, "--node", NODE],
            env={**self.environ, **environ},
            cwd="/",
            user=user,
            extra_groups=[],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, user: str, *arguments: str, **environ: str) -> tuple[int, str, str]:
        command = ["-c", RUN, *arguments, "--node", NODE]
        environ = {**self.environ, **environ}
        done = own_interpreter().run(command, environ, 60, user, Path("/"))
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def node(require: Callable[[bool, str], None]) -> Iterator[Node]:
    require(os.geteuid() == 0, "only root can run a command as another user")
    with PrivateRedis() as server:
        ledger = RedisLedger(StoreConfig(url=server.url), Role.WRITE)
        ledger.publish_scan(observation(NODE))
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CANHAZGPU_STORE_URL": server.url,
            "CANHAZGPU_NODE_NAME": "elsewhere",
        }
        yield Node(server, ledger, environ)


def test_ones_own_is_what_the_kernel_says(node: Node) -> None:
    # Given GPUs of two users
    node.reserve(ALICE, 0)
    node.reserve(BOB, 1)

    # If one claims to be the other, by every variable there is, and asks for the other's GPU
    lies = {name: ALICE for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")}
    everything = node.run(BOB, "release", **lies, SUDO_UID="65534", HOME="/root")
    named = node.run(BOB, "release", "--gpu-ids", "0", **lies)

    # I expect its own to be released and the other's to be refused
    assert everything == (0, f"released GPU 1 of {NODE}: {BOB} (manual)\n", "")
    assert (named[0], named[1]) == (2, "")
    assert f"GPU 0 of {NODE} is reserved by {ALICE} (manual)" in named[2]
    assert list(node.view.reservations) == [uuid(0)]


def test_released_twice_at_once_is_released_once(node: Node) -> None:
    node.reserve(ALICE, 0, 1, 2, 3)

    processes = [node.start(ALICE, "release") for _ in range(4)]
    outputs = [process.communicate(timeout=60) for process in processes]

    assert [process.returncode for process in processes] == [0] * 4
    assert sum("released GPU 0, 1, 2, 3 of" in out for out, _ in outputs) == 1
    assert node.view.reservations == {}


def test_an_administrators_reason_is_in_the_history(node: Node) -> None:
    owner = node.reserve(ALICE, 2)

    done = node.run(ROOT, "admin", "release", "--user", ALICE, "--reason", "needed for the demo")

    assert (done[0], done[2]) == (0, "")
    last = node.ledger.history(NODE, 0.0)[-1]
    assert (last.kind, last.gpu, last.reason, last.by) == (
        "release",
        uuid(2),
        "needed for the demo",
        "root",
    )
    assert last.claim is not None
    assert last.claim.owner == owner


def test_nobody_but_root_is_an_administrator(node: Node) -> None:
    node.reserve(BOB, 0)

    done = node.run(ALICE, "admin", "release", "--user", BOB, "--reason", "mine", SUDO_UID="0")

    assert (done[0], done[1]) == (2, "")
    assert list(node.view.reservations) == [uuid(0)]


def test_an_extension_is_added_to_the_present_end(node: Node) -> None:
    node.reserve(ALICE, 0)
    before = node.view.reservations[uuid(0)].expires_at

    done = node.run(ALICE, "extend", "--duration", "1h")

    after = node.view.reservations[uuid(0)].expires_at
    assert (done[0], done[2]) == (0, "")
    assert before is not None
    assert after == pytest.approx(before + 3600, abs=0.01)
    assert node.run(BOB, "extend", "--duration", "1h", "--gpu-ids", "0")[0] == 2


def test_a_quarantine_holds_a_gpu_back_until_it_is_lifted(node: Node) -> None:
    claim = Claim(new_owner_token("run"), "run", ALICE)

    first = node.run(ROOT, "admin", "quarantine", "3", "--reason", "fan is broken")
    again = node.run(ROOT, "admin", "quarantine", "3", "--reason", "another")
    node.ledger.publish_scan(observation(NODE))
    blocked = node.ledger.reserve_given(claim, [uuid(3)], observation(NODE))
    lifted = node.run(ROOT, "admin", "unquarantine", "3")
    granted = node.ledger.reserve_given(claim, [uuid(3)], observation(NODE))

    assert first == (0, f"quarantined GPU 3 of {NODE}: fan is broken\n", "")
    assert again[1] == f"GPU 3 of {NODE} was quarantined already: fan is broken (by root)\n"
    assert isinstance(blocked, BlockedGpu)
    assert blocked.why == "quarantined"
    assert lifted == (0, f"unquarantined GPU 3 of {NODE}\n", "")
    assert isinstance(granted, GrantedGpus)


def test_a_node_is_forgotten_once_nothing_of_it_is_reserved(node: Node) -> None:
    node.reserve(ALICE, 0)
    command = [sys.executable, "-c", RUN, "admin", "forget", NODE]

    def forget() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=node.environ, capture_output=True, text=True, check=False, timeout=60
        )

    refused = forget()
    node.run(ALICE, "release")
    done = forget()

    assert refused.returncode == 2
    assert "release them first with 'canhazgpu admin release --node n1" in refused.stderr
    assert (done.returncode, done.stderr) == (0, "")
    assert node.ledger.read_nodes() == []
    assert forget().returncode == 2


def test_without_the_store_each_says_so(node: Node) -> None:
    node.server.kill()

    for arguments in (
        ("release",),
        ("extend", "--duration", "1h"),
        ("admin", "release", "--user", BOB, "--reason", "x"),
        ("admin", "quarantine", "0", "--reason", "x"),
        ("queue",),
    ):
        code, out, err = node.run(ROOT, *arguments)
        assert (code, out) == (4, "")
        assert err.startswith("Error: cannot reach the store")
        assert len(err.splitlines()) == 1


def test_the_ledgers_own_rights_are_what_keeps_root_out(node: Node) -> None:
    node.reserve(ALICE, 0)
    with node.server.client() as client:
        client.execute_command("ACL", "SETUSER", *READER.split())
    reader = node.server.url.replace("unix://", "unix://reader:x@")

    code, out, err = node.run(
        ROOT, "admin", "release", "--user", ALICE, "--reason", "x", CANHAZGPU_STORE_URL=reader
    )

    assert (code, out) == (4, "")
    assert len(err.splitlines()) == 1
    assert list(node.view.reservations) == [uuid(0)]


def test_what_is_waited_for_is_shown_to_everybody(node: Node) -> None:
    node.ledger.join_queue(NODE, Waiter(new_owner_token("run"), ALICE, 65534, 3))
    node.ledger.join_queue(NODE, Waiter(new_owner_token("run"), BOB, 1, 0, (uuid(2),)))

    code, out, err = node.run(BOB, "queue")

    assert (code, err) == (0, "")
    rows = [line.split()[:-1] for line in out.splitlines()[1:]]
    assert rows == [
        [NODE, "1", ALICE, "3", "GPUs", "run"],
        [NODE, "2", BOB, "GPU", "2", "run"],
    ]


def test_the_caller_is_told_by_the_kernel_alone(require: Callable[[bool, str], None]) -> None:
    require(os.geteuid() == 0, "only root can run a command as another user")
    environ = {"USER": "root", "SUDO_UID": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "from canhazgpu.node.users import this_caller; print(this_caller())"

    said = subprocess.run(
        [sys.executable, "-c", code],
        env=environ,
        cwd="/",
        user=ALICE,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    uid = pwd.getpwnam(ALICE).pw_uid
    assert said == f"Caller(uid={uid}, user='{ALICE}', rights={Rights()})"


@pytest.mark.parametrize(
    "garbage", ["", "x", "[]", '{"owner": 7}', '{"owner": "a"}', "\x00\x1b[2J"]
)
def test_an_administrator_gets_rid_of_a_record_that_cannot_be_read(
    node: Node, garbage: str
) -> None:
    node.reserve(ALICE, 0)
    with node.server.client() as client:
        (key,) = client.keys("*reservations")
        client.hset(key, uuid(0), garbage)

    refused = node.run(ALICE, "release", "--gpu-ids", "0")
    done = node.run(ROOT, "admin", "release", "--gpu-ids", "0", "--reason", "garbage")

    assert refused[0] == 2
    assert (done[0], done[2]) == (0, "")
    assert node.view.reservations == {}
