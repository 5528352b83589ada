"""People's commands through a real agent: the same answers, and nobody's rights but one's own."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts.agent_node import PROGRAM, AgentNode, make_agent_node
from polling import poll_until
from terminal import Terminal

from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import Inbox, decode, encode
from canhazgpu.ledger.values import Claim

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may run an agent"),
]

ALICE, BOB = (pwd.getpwnam(name).pw_uid for name in ("games", "news"))
"""Two of the users that every Debian has."""
TIMES = re.compile(r"\d+(\.\d+)?s\b|\d{4}-\d\d-\d\d[T ][\d:]+Z?|\"age_s\": [\d.]+|\d+\.\d{3,}")


@pytest.fixture(scope="module")
def node() -> Iterator[AgentNode]:
    with make_agent_node() as made:
        yield made


@pytest.fixture(autouse=True)
def expect_no_faults(node: AgentNode) -> Iterator[None]:
    """Whatever a test does: no handler fails, imports a module, or is left over."""
    yield
    node.agent.wait_until_idle()
    assert node.agent.status()["faults"] == []


def untimed(text: str) -> str:
    return TIMES.sub("TIME", text)


def reservation(node: AgentNode, owner: str, user: str, uid: int, index: int) -> None:
    node.here.reserve(Claim(owner, "manual", user, uid, duration_s=3600.0), index)


class Connection:
    """A caller that speaks the wire itself."""

    def __init__(self, node: AgentNode) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(node.agent.people_socket))
        self._inbox = Inbox()

    def call(self, method: str, *, more: bool = False, **parameters: Any) -> None:
        self.socket.sendall(encode({"method": method, "parameters": parameters, "more": more}))

    def reply(self) -> dict[str, Any] | None:
        """The next message, None where the connection was closed."""
        while (frame := self._inbox.take()) is None:
            chunk = self.socket.recv(65536)
            if not chunk:
                return None
            self._inbox.add(chunk)
        return decode(frame)

    def ready(self, *words: str, **parameters: Any) -> str:
        """Announce a command; returns the nonce."""
        self.call(interface.COMMAND, arguments=list(words), **parameters)
        reply = self.reply()
        assert reply is not None and "error" not in reply
        return str(reply["parameters"]["nonce"])


@pytest.fixture
def connect(node: AgentNode) -> Iterator[Callable[[], Connection]]:
    """Connects to the agent, as often as is wanted."""
    with contextlib.ExitStack() as open_ones:

        def connected() -> Connection:
            made = Connection(node)
            open_ones.callback(made.socket.close)
            return made

        yield connected


@pytest.mark.parametrize(
    "words",
    [
        "status",
        "status --json",
        "status --me",
        "status --node elsewhere",
        "status --summary --free",
        "status --bad",
        "status --help",
        "status --watch never",
        "status --json --stream",
        "status --stream",
        "queue",
        "queue --json",
        "events --since 1h",
        "explain 4711",
        "report",
        "report --json",
        "validate",
        "validate --quiet --expected-gpus 9",
        "release",
        "release --gpu-ids 1",
        "extend --duration 1h",
        "extend --duration nonsense",
        "admin nodes",
        "admin",
        "admin release --gpu-ids 9 --reason test",
        "run",
        "run --gpus 0 -- true",
        "reserve --gpus 99 --nonblock",
        "run --gpus 99 --nonblock -- true",
    ],
)
def test_the_agent_answers_as_the_program_itself(node: AgentNode, words: str) -> None:
    before = node.agent.served("Command")
    through = node.run(*words.split())
    poll_until(lambda: node.agent.served("Command") > before)
    directly = node.directly(*words.split())
    assert (through.returncode, untimed(through.stdout), untimed(through.stderr)) == (
        directly.returncode,
        untimed(directly.stdout),
        untimed(directly.stderr),
    )


COUNTED_LATE = """
import signal, time
from canhazgpu.agent.handler.command_conversation import CommandConversation
report = CommandConversation._report
def after_the_caller(self, what):
    while what.is_served and not self.is_gone():
        time.sleep(0.01)
    if what.is_served:
        signal.raise_signal(signal.SIGIO)
    report(self, what)
CommandConversation._report = after_the_caller
"""


def test_a_command_is_counted_whose_caller_goes_at_once() -> None:
    with make_agent_node(changes=COUNTED_LATE) as node:
        assert node.run("queue").returncode == 0
        poll_until(lambda: node.agent.served("Command") == 1)


def test_a_user_needs_no_configuration_and_no_store(node: AgentNode) -> None:
    reserved = node.run("reserve", "--gpus", "1", "--short", user=ALICE)
    assert reserved.returncode == 0, reserved.stderr
    shown = json.loads(node.run("status", "--json", user=BOB).stdout)
    (held,) = [one for one in shown["nodes"][0]["gpus"] if one["reservation"]]
    assert (held["uuid"], held["reservation"]["user"]) == (reserved.stdout.strip(), "games")
    assert node.run("release", user=ALICE).returncode == 0


def test_a_user_is_told_where_the_agent_does_not_run(node: AgentNode, tmp_path: Path) -> None:
    absent = str(tmp_path / "agent.sock")
    shown = node.run("queue", user=ALICE, CANHAZGPU_AGENT_SOCKET=absent)
    assert (shown.returncode, shown.stdout) == (8, "")
    assert f"no agent answers at {absent}" in shown.stderr


def test_a_user_waits_for_an_agent_that_is_restarted(node: AgentNode) -> None:
    path = node.agent.people_socket
    away = path.rename(path.with_name("away.sock"))
    with subprocess.Popen(
        [PROGRAM, "queue"], env=node.env(), user=ALICE, group=ALICE, extra_groups=(), cwd="/"
    ) as asking:
        # It has looked for the socket by the time that it sleeps.
        poll_until(lambda: is_asleep(asking.pid))
        away.rename(path)
        assert asking.wait(30) == 0


def is_asleep(pid: int) -> bool:
    """Tell whether the process waits for a time to pass."""
    return "nanosleep" in Path(f"/proc/{pid}/wchan").read_text()


def test_a_user_sees_the_agent_that_carries_out_the_commands(node: AgentNode) -> None:
    shown = node.run("agent", "status", user=ALICE)
    assert shown.returncode == 0, shown.stderr
    assert "agent of n1" in shown.stdout


def test_nobody_releases_or_extends_what_is_anothers(node: AgentNode) -> None:
    uuid = node.run("reserve", "--gpus", "1", "--short", user=ALICE).stdout.strip()
    for words in (
        ("release", "--gpu-ids", uuid),
        ("extend", "--duration", "1h", "--gpu-ids", uuid),
        ("admin", "release", "--gpu-ids", uuid, "--reason", "mine"),
        ("admin", "quarantine", "--reason", "mine", uuid),
        ("admin", "forget", "n1"),
    ):
        refused = node.run(*words, user=BOB, USER="root", SUDO_USER="root")
        assert refused.returncode == 2, words
        assert refused.stderr.startswith("Error: ")
    assert node.run("release", user=ALICE).stdout.startswith("released GPU")


def test_a_node_that_is_gone_is_forgotten(node: AgentNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NVML_NODE", "n1")
    gone, store = node.here.observe("n2"), node.here.ledger()
    claim = Claim("manual:gone", "manual", "games", ALICE, duration_s=3600.0)
    store.reserve_given(claim, [gone.scan.gpus[0].uuid], gone)

    held = node.run("admin", "forget", "n2")
    assert (held.returncode, "has reserved GPUs" in held.stderr) == (2, True)
    store.release("n2", claim.owner, "by hand")
    forgotten = node.run("admin", "forget", "n2")

    assert (forgotten.returncode, forgotten.stderr) == (0, "")
    assert forgotten.stdout == "forgot n2\n"
    assert "n2" not in [view.node for view in store.read_nodes()]
    again = node.run("admin", "forget", "n2")
    assert (again.returncode, "knows no node 'n2'" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    "options",
    [
        ("--set", "run.max_reserve_s=0"),
        ("--config", "/etc/shadow"),
        ("--set", "node.state_dir=/tmp"),
    ],
)
def test_a_user_changes_nothing_of_the_configuration(
    node: AgentNode, options: tuple[str, ...]
) -> None:
    refused = node.run(*options, "status", user=ALICE)
    assert refused.returncode == 2
    assert "decides by its own configuration" in refused.stderr


def test_variables_of_the_caller_decide_nothing(node: AgentNode) -> None:
    shown = node.run(
        "status",
        user=ALICE,
        CANHAZGPU_STORE_URL="redis://127.0.0.1:1",
        CANHAZGPU_VALIDATION_NVML_LIBRARY="/nonexistent",
    )
    assert shown.returncode == 0
    assert "45MB used" in shown.stdout


def test_a_run_has_its_gpus_and_its_own_status(node: AgentNode) -> None:
    ran = node.run(
        "run", "--gpus", "2", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES; exit 7", user=ALICE
    )
    assert ran.returncode == 7
    assert len(ran.stdout.strip().split(",")) == 2
    poll_until(lambda: "in use" not in node.run("status").stdout)


@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        (("/nonexistent/program",), 127, "command not found"),
        (("/etc/passwd",), 126, "Permission denied"),
    ],
)
def test_a_command_that_cannot_be_executed_reserves_nothing(
    node: AgentNode, command: tuple[str, ...], status: int, text: str
) -> None:
    before = node.agent.served("Command")
    ran = node.run("run", "--gpus", "1", "--", *command)
    assert (ran.returncode, node.agent.served("Command")) == (status, before)
    assert text in ran.stderr


def test_a_command_that_is_executed_too_late_leaves_nothing(node: AgentNode) -> None:
    ran = node.run("run", "--gpus", "1", "nonexistent-program")
    assert (ran.returncode, ran.stdout) == (127, "")
    poll_until(lambda: "in use" not in node.run("status").stdout)


def test_the_terminals_size_and_colour_are_the_callers(node: AgentNode) -> None:
    screen = Terminal([PROGRAM, "status"], node.env(TERM="xterm"), columns=60)
    assert screen.wait_end() == 0
    lines = screen.output.splitlines()
    assert "\x1b[32m" in screen.output
    assert max(len(re.sub("\x1b\\[[0-9;]*m", "", line)) for line in lines) <= 60
    plain = node.run("status")
    assert "\x1b" not in plain.stdout


def test_a_view_on_a_terminal_obeys_keys_and_sizes(node: AgentNode) -> None:
    screen = Terminal(
        [PROGRAM, "status", "--watch", "3600"], node.env(TERM="xterm"), rows=20, columns=90
    )
    screen.wait_for("45MB used")
    screen.type("s")
    screen.wait_for("n1  4 GPUs")
    screen.type("s")
    screen.wait_for("45MB used")
    screen.type("q")
    assert screen.wait_end() == 0


def test_a_view_on_a_terminal_ends_with_a_wrong_option(node: AgentNode) -> None:
    screen = Terminal([PROGRAM, "status", "--watch", "--node", "elsewhere"], node.env(TERM="xterm"))
    assert screen.wait_end() == 2
    assert "knows no node" in screen.output


def test_a_shell_completes_what_the_store_knows(node: AgentNode) -> None:
    node.run("validate", "--publish")
    words = {"_CANHAZGPU_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    found = node.run(user=ALICE, COMP_WORDS="canhazgpu status --node ", **words)
    assert "plain,n1" in found.stdout.split()


def test_who_goes_away_ends_what_follows_for_them(node: AgentNode) -> None:
    with subprocess.Popen(
        [PROGRAM, "status", "--watch", "3600"], env=node.env(), stdout=subprocess.PIPE
    ) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        assert len(node.agent.children()) >= 1
        watching.kill()
    node.agent.wait_until_idle()


def test_who_follows_does_not_keep_the_agent_from_ending() -> None:
    with (
        make_agent_node() as own,
        subprocess.Popen(
            [PROGRAM, "status", "--watch", "3600"], env=own.env(), stdout=subprocess.PIPE
        ) as watching,
    ):
        assert watching.stdout is not None
        watching.stdout.readline()
        own.agent.process.terminate()
        # Far less than the time that requests have that change something.
        assert own.agent.process.wait(45) == 0
        assert watching.wait(45) == 8


def test_ctrl_c_ends_the_program_by_the_signal(node: AgentNode) -> None:
    # Whoever follows a node that nobody knows is told so, and ends.
    node.here.publish("n1")
    with subprocess.Popen(
        [PROGRAM, "events", "--follow", "--node", "n1"],
        env=node.env(),
        stderr=subprocess.PIPE,
    ) as following:
        poll_until(node.agent.children)
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == -signal.SIGINT


def test_a_reader_that_goes_away_is_no_error(node: AgentNode) -> None:
    shell = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {PROGRAM} status --json --watch 0.1 | head -n 1"],
        env=node.env(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shell.returncode == 128 + signal.SIGPIPE
    assert shell.stderr == ""


def test_a_reader_of_a_stream_may_go_away_after_a_line(node: AgentNode) -> None:
    copies = [f"copy{number:03}" for number in range(600)]
    for name in copies[:2]:
        node.here.publish(name)
    with node.here.redis.client() as client:
        client.sadd("canhazgpu:nodes", *copies)
    for words in ("head -n 1", "cat"):
        shell = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {PROGRAM} status --json --stream | {words}"],
            env=node.env(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert shell.stderr == ""
        assert json.loads(shell.stdout.splitlines()[0])["node"] == copies[0]
        went_away = words.startswith("head")
        assert shell.returncode in ((0, 128 + signal.SIGPIPE) if went_away else (0,))
        assert len(shell.stdout.splitlines()) == (1 if went_away else len(copies) + 1)
    with node.here.redis.client() as client:
        client.srem("canhazgpu:nodes", *copies)


def test_a_full_disk_is_no_success(node: AgentNode) -> None:
    with Path("/dev/full").open("w") as full:
        written = subprocess.run([PROGRAM, "status"], env=node.env(), stdout=full, check=False)
    assert written.returncode == 1


@pytest.mark.parametrize(
    "words", [("hooks", "check"), ("agent", "run"), ("config", "show"), ("x",)]
)
def test_what_is_none_of_peoples_commands_is_refused(
    connect: Callable[[], Connection], words: tuple[str, ...]
) -> None:
    caller = connect()
    caller.call(interface.PROCEED, nonce=caller.ready(*words))
    reply = caller.reply()
    assert reply is not None
    assert reply["parameters"]["status"] == 2
    assert reply["parameters"]["output"] == ""


def test_a_caller_that_takes_one_reply_gets_everything_with_it(
    node: AgentNode, connect: Callable[[], Connection]
) -> None:
    caller = connect()
    caller.call(interface.PROCEED, nonce=caller.ready("status", "--bad"))
    reply = caller.reply()
    assert reply is not None
    assert reply["parameters"]["status"] == 2
    assert "No such option" in reply["parameters"]["errors"]
    assert "continues" not in reply


@pytest.mark.parametrize("nonce", ["", "0" * 32, None])
def test_nothing_is_done_without_the_number(
    node: AgentNode, connect: Callable[[], Connection], nonce: str | None
) -> None:
    caller = connect()
    caller.ready("reserve", "--gpus", "1")
    caller.call(interface.PROCEED, nonce=nonce)
    reply = caller.reply()
    assert reply is not None and reply["error"] == interface.OUT_OF_TURN
    assert "in use" not in node.run("status").stdout


def test_nothing_is_done_for_who_gave_up(
    node: AgentNode, connect: Callable[[], Connection]
) -> None:
    caller = connect()
    caller.ready("reserve", "--gpus", "1")
    caller.socket.close()
    node.agent.wait_until_idle()
    assert "in use" not in node.run("status").stdout


def test_the_same_request_asked_again_gets_the_same_gpus(
    node: AgentNode, connect: Callable[[], Connection]
) -> None:
    def reserve(request: str) -> dict[str, Any]:
        caller = connect()
        words = ("reserve", "--gpus", "1", "--json")
        caller.call(interface.PROCEED, nonce=caller.ready(*words, request=request))
        reply = caller.reply()
        assert reply is not None and reply["parameters"]["status"] == 0
        found: dict[str, Any] = json.loads(reply["parameters"]["output"])
        return found

    first, again, other = reserve("a"), reserve("a"), reserve("b")
    assert (first["owner"], first["gpus"]) == (again["owner"], again["gpus"])
    assert other["owner"] != first["owner"]
    assert other["gpus"] != first["gpus"]
    assert node.run("release").returncode == 0


def test_malformed_parameters_are_named(node: AgentNode, connect: Callable[[], Connection]) -> None:
    caller = connect()
    caller.call(interface.COMMAND, arguments="status")
    reply = caller.reply()
    assert reply is not None
    assert reply["error"] == interface.INVALID_PARAMETER
    assert reply["parameters"] == {"parameter": "arguments"}
