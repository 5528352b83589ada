"""Serve one connection in its handler: parse the call, check who may ask it, answer."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import NoReturn

from canhazgpu.agent.handler.conversation import Conversation, send_message
from canhazgpu.agent.handler.fresh_process import become_fresh
from canhazgpu.agent.handler.request_message import serve_requests
from canhazgpu.agent.handler_reports import Report, write_report
from canhazgpu.agent.request import Request, RequestSocket
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import Inbox, Message, WireError, decode
from canhazgpu.agent.wire.interface import Call
from canhazgpu.frozen_dataclass import dataclass

NEXT_CALL_WAIT_S = 2.0
MAX_CALLS = 16
"""Calls of one connection, one after another; waiting for the next costs this process."""
CRASHED = 70
"""EX_SOFTWARE of sysexits.h."""


@dataclass(frozen=True, slots=True)
class Runners:
    """What carries out the requests and answers them: of hooks, of tasks, of people.

    That of hooks returns whether all went as usual.
    """

    hook: Callable[[Conversation, Call], bool]
    job_check: Callable[[Request], None]
    command: Callable[[Request, Call], None]


def run_handler(request: Request, runners: Runners) -> NoReturn:
    """Be the handler of this request; the process ends with it."""
    become = partial(become_fresh, {request.connection.fileno(), request.reports})
    _run(become, request.reports, lambda: serve(request, runners))


def run_spare_handler(
    end: socket.socket, reports: int, prepare: Callable[[], None], runners: Runners
) -> NoReturn:
    """Be a handler whose requests come later, at this end of a pair; none may ever come."""

    def become() -> None:
        become_fresh({end.fileno(), reports})
        prepare()

    _run(
        become,
        reports,
        lambda: serve_requests(end, reports, lambda one: serve(one, runners)),
    )


def _run(become: Callable[[], None], reports: int, work: Callable[[], object]) -> NoReturn:
    status = CRASHED
    try:
        become()
        known = len(sys.modules)
        work()
        if len(sys.modules) != known:
            late = ", ".join(list(sys.modules)[known:])
            _report_fault(reports, f"a handler imported {late}")
        status = 0
    except BaseException as exc:
        where = traceback.extract_tb(exc.__traceback__)[-1]
        _report_fault(
            reports,
            f"internal error at {Path(where.filename).name}:{where.lineno}:"
            f" {type(exc).__name__}: {exc} (please report this)",
        )
    finally:
        os._exit(status)


def serve(request: Request, runners: Runners) -> bool:
    """Answer the request, and the calls that follow on its connection.

    Returns whether it was a hook's, and all went as usual.
    """
    inbox, frame = Inbox(request.rest), request.frame
    for _ in range(MAX_CALLS):
        try:
            call = interface.parse_call(decode(frame))
        except WireError:
            return False
        if call.method in interface.HOOK_METHODS:
            return _serve_hook(request, call, runners.hook)
        if call.method == interface.CHECK_JOB:
            runners.job_check(request)
            return False
        if call.method == interface.COMMAND:
            runners.command(replace(request, rest=inbox.rest), call)
            return False
        send_message(request.connection, answer_to(request, call))
        write_report(request.reports, Report(os.getpid(), call.method, is_served=True))
        following = _next_frame(request, inbox)
        if following is None:
            return False
        frame = following
    return False


def answer_to(request: Request, call: Call) -> Message:
    """Return the answer to a call that changes nothing and is for everybody."""
    if call.method == interface.STATUS:
        return interface.reply(request.status)
    if call.method == interface.GET_INFO:
        return interface.reply(
            {
                "vendor": "canhazgpu",
                "product": "canhazgpu agent",
                "version": str(request.status["release"]),
                "url": "https://pypi.org/project/canhazgpu/",
                "interfaces": list(interface.INTERFACES),
            }
        )
    if call.method == interface.GET_INTERFACE_DESCRIPTION:
        return _description(call.parameters.get("interface"))
    if call.method in (interface.CONFIRM, interface.PROCEED):
        return interface.error(interface.OUT_OF_TURN)
    if (wanted := call.method.rpartition(".")[0]) not in interface.INTERFACES:
        return interface.error(interface.INTERFACE_NOT_FOUND, {"interface": wanted})
    return interface.error(interface.METHOD_NOT_FOUND, {"method": call.method})


def _description(wanted: object) -> Message:
    if not isinstance(wanted, str):
        return interface.error(interface.INVALID_PARAMETER, {"parameter": "interface"})
    if wanted not in interface.INTERFACES:
        return interface.error(interface.INTERFACE_NOT_FOUND, {"interface": wanted})
    return interface.reply({"description": interface_description(wanted)})


def interface_description(name: str) -> str:
    """Return the text of the file of one of this service's interfaces."""
    file = resources.files("canhazgpu.agent.wire") / f"{name}.varlink"
    return file.read_text("utf-8")


def _serve_hook(
    request: Request, call: Call, run_hook_request: Callable[[Conversation, Call], bool]
) -> bool:
    if request.arrived_at is not RequestSocket.HOOKS or not request.peer.is_root:
        send_message(request.connection, interface.error(interface.NOT_PERMITTED))
        return False
    try:
        interface.environment_of(call)
    except WireError as exc:
        send_message(
            request.connection,
            interface.error(interface.INVALID_PARAMETER, {"parameter": str(exc)}),
        )
        return False
    conversation = Conversation(request, call.method)
    try:
        return run_hook_request(conversation, call) and conversation.is_done
    finally:
        conversation.close()


def _next_frame(request: Request, inbox: Inbox) -> bytes | None:
    """Return the next frame of the connection, None if none comes."""
    ends_at = time.monotonic() + NEXT_CALL_WAIT_S
    try:
        while (frame := inbox.take()) is None:
            request.connection.settimeout(max(ends_at - time.monotonic(), 0.001))
            chunk = request.connection.recv(65536)
            if not chunk:
                return None
            inbox.add(chunk)
    except (OSError, WireError):
        return None
    return frame


def _report_fault(reports: int, text: str) -> None:
    write_report(reports, Report(os.getpid(), fault=text))
