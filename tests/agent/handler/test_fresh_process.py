"""A handler has nothing of the listener but its connection, and imports nothing."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from canhazgpu.agent.handler.conversation import Conversation
from canhazgpu.agent.handler.request_message import encode_for_handler
from canhazgpu.agent.handler.serve import CRASHED, Runners, run_handler, run_spare_handler
from canhazgpu.agent.handler_reports import Report, Reports
from canhazgpu.agent.peer import peer_of
from canhazgpu.agent.request import Request, RequestSocket
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import encode
from canhazgpu.agent.wire.interface import Call

CALL = {"method": interface.JOB_START, "parameters": {"environment": {"SLURM_JOB_ID": "7"}}}


Handled = Callable[[Callable[[Conversation, Call], None]], tuple[int, str, list[Report]]]


@pytest.fixture(params=["forked for its request", "forked before"])
def handled(request: pytest.FixtureRequest) -> Handled:
    return partial(outcome, is_spare=request.param == "forked before")


def outcome(
    work: Callable[[Conversation, Call], None], *, is_spare: bool
) -> tuple[int, str, list[Report]]:
    """The exit status of a handler that does this, what it sent, and its reports."""
    reports = Reports()
    listener_end, handler_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, theirs = socket.socketpair()
    frame = encode(CALL)[:-1]
    peer = peer_of(theirs)
    request = Request(
        theirs, frame, b"", RequestSocket.HOOKS, peer, {"release": "1"}, os.getpid(), 0
    )
    runners = Runners(work, lambda _: None, lambda _request, _call: None)
    # What other tests left open warns when it is collected, and imports what shows it.
    gc.collect()
    pid = os.fork()
    if pid == 0:
        os.environ["LD_PRELOAD_OF_LISTENER"] = "x"
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if is_spare:
            run_spare_handler(handler_end, reports.write_end, lambda: None, runners)
        values = {name: getattr(request, name) for name in request.__slots__}
        run_handler(Request(**{**values, "reports": reports.write_end}), runners)
    handler_end.close()
    if is_spare:
        socket.send_fds(listener_end, [encode_for_handler(request)], [theirs.fileno()])
    listener_end.close()
    theirs.close()
    ours.settimeout(60)
    sent = b""
    while chunk := ours.recv(65536):
        sent += chunk
    _, status = os.waitpid(pid, 0)
    found = list(reports.received())
    for descriptor in (reports.read_end, reports.write_end):
        os.close(descriptor)
    ours.close()
    return os.waitstatus_to_exitcode(status), sent.decode(), found


def tell(conversation: Conversation, what: object) -> None:
    conversation._request.connection.sendall(json.dumps(what).encode())


def test_it_has_no_descriptor_but_its_own(handled: Handled) -> None:
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]

    def work(conversation: Conversation, _: Call) -> None:
        names = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        tell(conversation, {path.name: str(path.readlink()) for path in names})

    status, sent, _ = handled(work)
    for descriptor in held:
        os.close(descriptor)

    links: dict[str, str] = json.loads(sent)
    above = [link for name, link in links.items() if int(name) > 2]
    assert status == 0
    assert {links[name] for name in ("0", "1", "2")} == {"/dev/null"}
    # Its connection, the pipe of reports, and its peer; where its requests come from.
    kinds = [link.partition(":")[0] for link in above]
    assert sorted(set(kinds)) == ["anon_inode", "pipe", "socket"]
    assert len(kinds) <= 4


def test_it_has_no_variable_and_no_handler_of_the_listener(handled: Handled) -> None:
    def work(conversation: Conversation, _: Call) -> None:
        ignored = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        own_session = os.getsid(0) == os.getpid()
        tell(conversation, [dict(os.environ), ignored, own_session, str(Path.cwd())])

    _, sent, _ = handled(work)

    assert json.loads(sent) == [{}, False, True, "/"]


@pytest.mark.parametrize("name", ["this", "antigravity"])
def test_an_import_is_reported(handled: Handled, name: str) -> None:
    assert name not in sys.modules

    def work(conversation: Conversation, _: Call) -> None:
        sys.modules[name] = os

    _, _, found = handled(work)

    assert [one.fault for one in found if one.fault] == [f"a handler imported {name}"]


def test_an_error_is_reported(handled: Handled) -> None:
    def work(conversation: Conversation, _: Call) -> None:
        raise RuntimeError("no luck")

    status, _, found = handled(work)

    assert status == CRASHED
    (fault,) = [one.fault for one in found if one.fault]
    assert "RuntimeError: no luck" in fault and "test_fresh_process.py" in fault


def test_what_is_written_reaches_no_descriptor(handled: Handled) -> None:
    def work(conversation: Conversation, _: Call) -> None:
        sys.stdout.write("out\n")
        sys.stderr.write("err\n")
        written: list[Any] = [one.getvalue() for one in (sys.stdout, sys.stderr)]  # type: ignore[attr-defined]
        tell(conversation, written)

    _, sent, _ = handled(work)

    assert json.loads(sent) == ["out\n", "err\n"]


def test_descriptors_are_closed_by_what_is_open(
    handled: Handled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no close_range(2), Python would try 2**31 numbers, for minutes."""
    monkeypatch.setattr(os, "closerange", None)
    status, _, _ = handled(lambda conversation, _: conversation.report_served())
    assert status == 0
