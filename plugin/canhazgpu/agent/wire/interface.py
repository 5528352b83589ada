"""The agent's interface as values: its methods, errors and messages; pure.

``io.canhazgpu.Agent.varlink`` beside this module describes it for others. It grows by addition
alone: a method, or an optional parameter; `VERSION` counts these steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canhazgpu.agent.wire.framing import Message, WireError
from canhazgpu.frozen_dataclass import dataclass

INTERFACE = "io.canhazgpu.Agent"
SERVICE = "org.varlink.service"
INTERFACES = (SERVICE, INTERFACE)
"""The interfaces that the agent has; a file of each name is beside this module."""
VERSION = 4

JOB_START = f"{INTERFACE}.JobStart"
JOB_END = f"{INTERFACE}.JobEnd"
CHECK = f"{INTERFACE}.Check"
CHECK_JOB = f"{INTERFACE}.CheckJob"
COMMAND = f"{INTERFACE}.Command"
CONFIRM = f"{INTERFACE}.Confirm"
PROCEED = f"{INTERFACE}.Proceed"
STATUS = f"{INTERFACE}.Status"
GET_INFO = f"{SERVICE}.GetInfo"
GET_INTERFACE_DESCRIPTION = f"{SERVICE}.GetInterfaceDescription"

HOOK_METHODS = frozenset({JOB_START, JOB_END, CHECK})

NOT_PERMITTED = f"{INTERFACE}.NotPermitted"
BUSY = f"{INTERFACE}.Busy"
UNAVAILABLE = f"{INTERFACE}.Unavailable"
OUT_OF_TURN = f"{INTERFACE}.OutOfTurn"
METHOD_NOT_FOUND = f"{SERVICE}.MethodNotFound"
INVALID_PARAMETER = f"{SERVICE}.InvalidParameter"
INTERFACE_NOT_FOUND = f"{SERVICE}.InterfaceNotFound"

MAX_VARIABLES = 1000
HOOK_VARIABLE_PREFIXES = ("SLURM", "CANHAZGPU_", "HOOK_")
HOOK_VARIABLES = frozenset({"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "TZ"})


@dataclass(frozen=True, slots=True)
class Call:
    """A call of one method; with `more` its caller takes any number of replies."""

    method: str
    parameters: Mapping[str, Any]
    more: bool = False


def parse_call(message: Message) -> Call:
    """Return the call; raises `WireError`."""
    method, parameters = message.get("method"), message.get("parameters", {})
    if not isinstance(method, str) or not isinstance(parameters, dict):
        raise WireError("a call has a method and an object of parameters")
    return Call(method, parameters, message.get("more") is True)


def environment_of(call: Call) -> dict[str, str]:
    """Return the environment in a hook's call; raises `WireError`."""
    found = call.parameters.get("environment")
    if not isinstance(found, dict) or len(found) > MAX_VARIABLES:
        raise WireError("environment")
    for name, value in found.items():
        if not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
            raise WireError("environment")
    return {name: value for name, value in found.items() if is_for_hooks(name)}


def is_for_hooks(name: str) -> bool:
    """Return whether a hook's variable is passed on; the client of hooks has the same rule."""
    return name.startswith(HOOK_VARIABLE_PREFIXES) or name in HOOK_VARIABLES


def reply(parameters: Mapping[str, Any]) -> Message:
    """Return the answer to a call."""
    return {"parameters": dict(parameters)}


def reply_of_several(parameters: Mapping[str, Any]) -> Message:
    """Return an answer that another one follows."""
    return {"parameters": dict(parameters), "continues": True}


def error(name: str, parameters: Mapping[str, Any] | None = None) -> Message:
    """Return the answer to a call that failed."""
    return {"error": name, "parameters": dict(parameters or {})}
