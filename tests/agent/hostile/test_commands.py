"""Commands through the agent by users who say that they are somebody else.

Whatever a process looks like to itself, it gets what is its user's, and nothing of others.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hosts.account_files import ANN, BOB, EVE, FIRST_OF_ANN, FIRST_OF_ROOT, write_accounts
from hosts.agent_node import AgentNode, make_agent_node
from hosts.peers import become, become_in_user_namespace, output_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import Inbox, decode, encode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users"),
]

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
WRONG, TEMPFAIL = 2, 75
LIES = {
    "USER": "bob",
    "SUDO_USER": "bob",
    "SUDO_UID": "0",
    "CANHAZGPU_OWNER": "run:1",
    "CANHAZGPU_NODE_NAME": "n2",
    "CANHAZGPU_AGENT_OPERATORS": "ann",
    "SLURMD_NODENAME": "n1",
    "SLURM_JOB_ID": "12",
    "TERM": "xterm",
}


@pytest.fixture(scope="module")
def node() -> Iterator[AgentNode]:
    with tempfile.TemporaryDirectory() as directory:
        accounts = write_accounts(Path(directory) / "etc")
        agent: dict[str, object] = {"operators": ["eve"], "max_requests_per_user": 32}
        limits: dict[str, object] = {"max_gpus": 1, "max_reserve_s": 7200.0}
        with make_agent_node(4, changes=accounts, agent=agent, run=limits) as made:
            yield made


@pytest.fixture(autouse=True)
def _nothing_left(node: AgentNode) -> Iterator[None]:
    yield
    assert asked(node, lambda: become(EVE), *REVOKE_ALL)["status"] == 0
    node.agent.wait_until_idle()
    assert node.agent.status()["faults"] == []


REVOKE_ALL = ("admin", "release", "--gpu-ids", "0,1,2,3", "--reason", "the test is over")


def plain() -> None:
    become(ANN)


def root_of_a_namespace() -> None:
    become_in_user_namespace(ANN, f"0 {ANN} 1")
    assert os.getuid() == 0


def the_other_in_a_namespace() -> None:
    """As `unshare --map-user` shows it."""
    become_in_user_namespace(ANN, f"{BOB} {ANN} 1")
    assert os.getuid() == BOB


def in_a_container() -> None:
    become_in_user_namespace(ANN, f"0 {ANN} 1\n1 {FIRST_OF_ANN} 1000")
    os.setgroups([])
    os.setgid(BOB % 1000)
    os.setuid(BOB % 1000)


def with_another_boot() -> None:
    """In a mount namespace where the boot has another number, and /etc says other things."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNS) == 0
    assert libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write("11111111-2222-3333-4444-555555555555\n")
    for path in (b"/proc/sys/kernel/random/boot_id", b"/etc/passwd", b"/etc/subuid"):
        assert libc.mount(file.name.encode(), path, None, MS_BIND, None) == 0
    become(ANN)


DISGUISES = [
    plain,
    root_of_a_namespace,
    the_other_in_a_namespace,
    in_a_container,
    with_another_boot,
]
disguised = pytest.mark.parametrize("disguise", DISGUISES)


def asked(
    node: AgentNode,
    prepare: Callable[[], None],
    *words: str,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The answer to a command of a process that did this first."""
    directory = os.open(node.agent.people_socket.parent, os.O_PATH)

    def ask() -> str:
        prepare()
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(f"/proc/self/fd/{directory}/agent.sock")
            agent.settimeout(60)
            inbox = Inbox()
            given = {"arguments": list(words), "variables": dict(variables or {})}
            ready = called(agent, inbox, interface.COMMAND, **given)
            if "error" in ready:
                return json.dumps(ready)
            nonce = ready["parameters"]["nonce"]
            done = called(agent, inbox, interface.PROCEED, nonce=nonce)
            return json.dumps(done.get("parameters", done))

    told = output_of(ask)
    os.close(directory)
    assert told.startswith("{"), told
    found: dict[str, Any] = json.loads(told)
    return found


def called(agent: socket.socket, inbox: Inbox, method: str, **parameters: Any) -> dict[str, Any]:
    agent.sendall(encode({"method": method, "parameters": parameters}))
    while (frame := inbox.take()) is None:
        chunk = agent.recv(65536)
        if not chunk:
            return {}
        inbox.add(chunk)
    return decode(frame)


def holders(node: AgentNode) -> dict[str, tuple[str, int | None]]:
    """Whose each reserved GPU is."""
    (view,) = node.here.ledger().read_nodes(["n1"])
    return {gpu: (one.claim.user, one.claim.uid) for gpu, one in view.reservations.items()}


def reserved(node: AgentNode, uid: int) -> str:
    """A GPU that this user has reserved."""
    done = asked(node, lambda: become(uid), "reserve", "--gpus", "1", "--short")
    assert done["status"] == 0, done
    return str(done["output"]).strip()


@disguised
def test_nothing_of_anothers_is_changed(node: AgentNode, disguise: Callable[[], None]) -> None:
    gpu = reserved(node, BOB)
    before = holders(node)
    for words in (
        ("release", "--gpu-ids", gpu),
        ("release", "--gpu-ids", gpu, "--force"),
        ("extend", "--duration", "1h", "--gpu-ids", gpu),
        ("extend", "--duration", "1h"),
        ("admin", "release", "--gpu-ids", gpu, "--reason", "mine"),
        ("admin", "release", "--user", "bob", "--reason", "mine"),
        ("admin", "quarantine", gpu, "--reason", "mine"),
        ("admin", "unquarantine", gpu),
        ("admin", "forget", "n1"),
    ):
        refused = asked(node, disguise, *words, variables=LIES)
        assert (refused["status"], refused["output"]) == (WRONG, ""), (words, refused)
    said = asked(node, disguise, "validate", "--publish", "--expected-gpus", "1")
    assert "only root and this node's operators may publish" in said["output"]
    assert holders(node) == before == {gpu: ("bob", BOB)}
    (view,) = node.here.ledger().read_nodes(["n1"])
    assert not view.quarantines


@disguised
def test_all_of_ones_disguises_are_one_user(node: AgentNode, disguise: Callable[[], None]) -> None:
    first = asked(node, disguise, "reserve", "--gpus", "1", "--short")
    assert first["status"] == 0, first
    assert holders(node) == {str(first["output"]).strip(): ("ann", ANN)}
    # run.max_gpus is 1, for all that is hers together.
    for other in DISGUISES:
        more = asked(node, other, "reserve", "--gpus", "1")
        assert more["status"] == TEMPFAIL, more
        assert "you hold 1" in more["errors"]
    assert len(holders(node)) == 1
    # And what is hers she releases, whoever she looks like.
    for other in DISGUISES[1:]:
        released = asked(node, other, "release")
        assert released["status"] == 0, released
        assert holders(node) == {}
        assert asked(node, disguise, "reserve", "--gpus", "1")["status"] == 0


def test_who_is_nobody_looks_only(node: AgentNode) -> None:
    gpu = reserved(node, BOB)
    for uid in (FIRST_OF_ROOT, 4_100_999_999):
        seen = asked(node, lambda own=uid: become(own), "status", "--json")  # type: ignore[misc]
        assert seen["status"] == 0 and gpu in seen["output"]
        refused = asked(node, lambda own=uid: become(own), "reserve", "--gpus", "1")  # type: ignore[misc]
        assert refused["status"] == WRONG
        assert "you get no GPUs here" in refused["errors"]
    assert list(holders(node)) == [gpu]


def test_an_operator_administrates_and_has_no_limit(node: AgentNode) -> None:
    gpu = reserved(node, BOB)
    words = ("admin", "release", "--gpu-ids", gpu, "--reason", "needed")
    assert asked(node, lambda: become(EVE), *words)["status"] == 0
    assert holders(node) == {}
    taken = asked(node, lambda: become(EVE), "reserve", "--gpus", "3", "--duration", "9d")
    assert taken["status"] == 0, taken
    assert {user for user, _ in holders(node).values()} == {"eve"}
    events = asked(node, lambda: become(BOB), "events", "--json")
    assert '"by": "eve"' in events["output"]


def test_a_process_of_another_pid_namespace_is_its_user(node: AgentNode) -> None:
    def in_pid_namespace() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWPID) == 0
        if child := os.fork():
            os.waitpid(child, 0)
            os._exit(0)
        become(ANN)
        assert os.getpid() == 1

    done = asked(node, in_pid_namespace, "reserve", "--gpus", "1", "--short")
    assert done["status"] == 0, done
    assert holders(node) == {str(done["output"]).strip(): ("ann", ANN)}


VOCABULARY = """
status queue events explain report validate release extend reserve run admin nodes forget quarantine
unquarantine --gpus --gpu-ids --json --node --reason --user --duration --wait --nonblock --force
--short --note --all --me --since --days --publish --help -- -g -G -t 0 1 2 99 -1 1h 0,1 n1 n2 bob
root true /etc/shadow ../../etc/passwd * % $(id)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("--", "hooks", "render", "--output"),
        ("--", "hooks", "install", "--root"),
        ("--", "config", "show"),
        ("--", "agent", "status"),
        ("--", "agent", "install", "--root"),
        ("--", "store", "acl", "--node", "n1", "--output"),
        ("--", "completion", "bash"),
        ("hooks", "render", "--output"),
        ("--set", "run.max_gpus=9", "hooks", "render", "--output"),
        ("--config", "/dev/null", "hooks", "render", "--output"),
    ],
)
def test_roots_own_commands_are_nobody_elses(
    node: AgentNode, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Wherever the word stands: they would be carried out as root."""
    before = sorted(tmp_path.iterdir())
    refused = asked(node, plain, *words, str(tmp_path / "written"))
    assert (refused["status"], refused["output"]) == (WRONG, ""), refused
    assert sorted(tmp_path.iterdir()) == before


GETS = ("run", "reserve")
WORDS = st.one_of(
    st.sampled_from(VOCABULARY.split()),
    st.text(st.characters(exclude_characters="\0"), max_size=12),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(WORDS, max_size=7))
def test_whatever_is_typed_others_keep_what_is_theirs(node: AgentNode, words: list[str]) -> None:
    if "bob" not in {user for user, _ in holders(node).values()}:
        reserved(node, BOB)
    before = {gpu: who for gpu, who in holders(node).items() if who[1] == BOB}

    # Nobody waits here for what is bob's.
    typed = [two for one in words for two in ((one, "--nonblock") if one in GETS else (one,))]
    told = asked(node, plain, *typed, variables=LIES)

    assert told.get("error") or "status" in told or "execute" in told
    after = holders(node)
    assert {gpu: who for gpu, who in after.items() if who[1] == BOB} == before
    assert {uid for _, uid in after.values()} <= {ANN, BOB}
    (view,) = node.here.ledger().read_nodes(["n1"])
    assert not view.quarantines
