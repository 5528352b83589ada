"""The agent's wire, spoken by a Varlink client of others (PyPI: asyncvarlink)."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest
from asyncvarlink import (
    VarlinkClientProtocol,
    VarlinkInterface,
    VarlinkMethodCall,
    connect_unix_varlink,
    varlinkmethod,
)
from asyncvarlink.serviceinterface import (
    InterfaceNotFound,
    VarlinkServiceInterface,
)
from hosts.running_agent import RunningAgent

from canhazgpu.agent.socket_files import short_address
from canhazgpu.agent.wire import interface
from canhazgpu.cli.version import VERSION

pytestmark = pytest.mark.slow


class Fault(TypedDict):
    at: float
    text: str


class StatusReply(TypedDict):
    release: str
    interface: int
    node: str
    role: str | None
    pid: int
    started_at: float
    served: dict[str, int]
    refused: int
    children: int
    executions: int | None
    release_since: float | None
    upgrade_fault: Fault | None
    faults: list[Fault]


class Announced(TypedDict):
    pid: int
    agent: int
    interface: int
    limit_s: float
    nonce: str


class Execution(TypedDict):
    arguments: list[str]
    environment: dict[str, str]


class Proceeded(TypedDict):
    output: str
    errors: str
    status: int | None
    execute: Execution | None


class AgentInterface(VarlinkInterface, name=interface.INTERFACE):
    """The agent's interface in that client's terms; it refuses answers of other types."""

    @varlinkmethod
    def Status(self) -> StatusReply: ...

    @varlinkmethod
    def Command(
        self,
        *,
        arguments: list[str],
        variables: dict[str, str] | None = None,
        request: str | None = None,
    ) -> Announced: ...

    @varlinkmethod
    def Proceed(self, *, nonce: str) -> Iterator[Proceeded]:
        yield from ()


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[VarlinkClientProtocol]:
    with short_address(path) as address:
        transport, protocol = await connect_unix_varlink(VarlinkClientProtocol, address)
    try:
        yield protocol
    finally:
        transport.close()


def ask(agent: RunningAgent, work: Callable[[VarlinkClientProtocol], Awaitable[Any]]) -> Any:
    async def asked() -> Any:
        async with connected(agent.people_socket) as protocol:
            return await asyncio.wait_for(work(protocol), 60)

    return asyncio.run(asked())


def service(protocol: VarlinkClientProtocol) -> Any:
    return protocol.make_proxy(VarlinkServiceInterface)


def test_it_learns_what_the_agent_is(agent: RunningAgent) -> None:
    info = ask(agent, lambda protocol: service(protocol).GetInfo())

    assert (info["vendor"], info["version"]) == ("canhazgpu", VERSION)
    assert info["interfaces"] == ["org.varlink.service", interface.INTERFACE]


@pytest.mark.parametrize("name", [interface.INTERFACE, "org.varlink.service"])
def test_it_reads_the_description_of_each_interface(agent: RunningAgent, name: str) -> None:
    found = ask(agent, lambda protocol: service(protocol).GetInterfaceDescription(interface=name))
    description = found["description"]

    # The service's own interface is in every client; GetInfo names it, so it is described too.
    assert re.search(rf"^interface {re.escape(name)}$", description, re.MULTILINE)
    assert "\nmethod " in description


def test_the_answer_to_status_has_the_types_of_the_description(agent: RunningAgent) -> None:
    found = ask(agent, lambda protocol: protocol.make_proxy(AgentInterface).Status())

    assert (found["release"], found["pid"], found["faults"]) == (VERSION, agent.process.pid, [])


def test_several_calls_go_over_one_connection(agent: RunningAgent) -> None:
    async def both(protocol: VarlinkClientProtocol) -> Any:
        info = service(protocol).GetInfo()
        status = protocol.make_proxy(AgentInterface).Status()
        return await asyncio.gather(info, status)

    info, status = ask(agent, both)

    assert info["version"] == status["release"] == VERSION


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["queue", "--help"], 0, "Usage: canhazgpu queue"),
        (["status", "--bad"], 2, "No such option"),
        (["hooks", "check"], 2, "No such command"),
    ],
)
def test_a_command_is_carried_out_step_by_step(
    agent: RunningAgent, arguments: list[str], status: int, text: str
) -> None:
    async def carried_out(protocol: VarlinkClientProtocol) -> Any:
        proxy = protocol.make_proxy(AgentInterface)
        announced = await proxy.Command(arguments=arguments, variables={"TERM": "dumb"})
        return [one async for one in proxy.Proceed(nonce=announced["nonce"])]

    *written, last = ask(agent, carried_out)

    assert (last["status"], last.get("execute")) == (status, None)
    assert text in "".join(one["output"] + one["errors"] for one in (*written, last))


def test_a_command_to_execute_is_an_answer(agent: RunningAgent) -> None:
    async def carried_out(protocol: VarlinkClientProtocol) -> Any:
        proxy = protocol.make_proxy(AgentInterface)
        job = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1", "CUDA_VISIBLE_DEVICES": "0"}
        announced = await proxy.Command(arguments=["run", "--", "true"], variables=job)
        return [one async for one in proxy.Proceed(nonce=announced["nonce"])]

    *_, last = ask(agent, carried_out)

    assert last["execute"]["arguments"] == ["true"]
    assert last["execute"]["environment"]["CUDA_VISIBLE_DEVICES"] == "0"


def test_the_description_of_an_unknown_interface_is_an_error(agent: RunningAgent) -> None:
    with pytest.raises(InterfaceNotFound) as caught:
        ask(agent, lambda protocol: service(protocol).GetInterfaceDescription(interface="a.b"))

    assert caught.value.parameters == {"interface": "a.b"}


@pytest.mark.parametrize(
    ("method", "error", "parameters"),
    [
        (f"{interface.INTERFACE}.No", "MethodNotFound", {"method": f"{interface.INTERFACE}.No"}),
        ("org.varlink.service.No", "MethodNotFound", {"method": "org.varlink.service.No"}),
        ("a.b.Status", "InterfaceNotFound", {"interface": "a.b"}),
        (
            "org.varlink.service.GetInterfaceDescription",
            "InvalidParameter",
            {"parameter": "interface"},
        ),
    ],
)
def test_an_unknown_call_is_an_error_of_the_standard(
    agent: RunningAgent, method: str, error: str, parameters: dict[str, str]
) -> None:
    reply, _ = ask(agent, lambda protocol: protocol.call(VarlinkMethodCall(method, {})))

    assert (reply.error, reply.parameters) == (f"org.varlink.service.{error}", parameters)


def test_hooks_are_refused_at_the_socket_for_everybody(agent: RunningAgent) -> None:
    call = VarlinkMethodCall(interface.JOB_START, {"environment": {}})

    reply, _ = ask(agent, lambda protocol: protocol.call(call))

    assert reply.error == interface.NOT_PERMITTED
