"""What a call of `Command` may say, and what it may not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.agent.command_client.caller import VARIABLES as SENT
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.command_line import (
    VARIABLES,
    CommandLine,
    Terminal,
    command_line_of,
)
from canhazgpu.agent.wire.framing import WireError
from canhazgpu.agent.wire.interface import Call

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "arguments": st.lists(st.text(max_size=8)) | JSON,
        "terminal": st.fixed_dictionaries(
            {}, optional={"width": JSON, "height": JSON, "reads_terminal": JSON}
        )
        | JSON,
        "variables": st.dictionaries(st.sampled_from(VARIABLES), JSON) | JSON,
        "request": JSON,
    },
)


def parsed(**parameters: Any) -> CommandLine:
    return command_line_of(Call(interface.COMMAND, {"arguments": ["status"], **parameters}))


def test_the_words_and_the_terminal() -> None:
    found = parsed(
        terminal={"width": 90, "height": 20, "errors_on_terminal": True},
        variables={"TERM": "xterm", "PATH": "/evil", "CANHAZGPU_STORE_URL": "redis://evil"},
        request="2",
    )
    assert found == CommandLine(
        ("status",), Terminal(90, 20, errors_on_terminal=True), {"TERM": "xterm"}, "2"
    )


def test_the_client_sends_the_variables_that_the_agent_takes() -> None:
    assert SENT == VARIABLES


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"arguments": "status"}, "arguments"),
        ({"arguments": ["status", 1]}, "arguments"),
        ({"arguments": ["a\0b"]}, "arguments"),
        ({"arguments": ["x"] * 40_000}, "arguments"),
        ({"terminal": {"width": 0}}, "terminal"),
        ({"terminal": {"height": 10**9}}, "terminal"),
        ({"terminal": {"width": True}}, "terminal"),
        ({"terminal": {"reads_terminal": 1}}, "terminal"),
        ({"terminal": 80}, "terminal"),
        ({"variables": {"TERM": "x" * 5000}}, "variables"),
        ({"variables": {"TERM": ["x"]}}, "variables"),
        ({"variables": []}, "variables"),
        ({"request": "x" * 65}, "request"),
        ({"request": 7}, "request"),
    ],
)
def test_what_is_malformed_is_named(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(WireError, match=f"^{named}$"):
        parsed(**parameters)


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "UTC", "CET-1CEST", "<+03>-3", "America/Argentina/Ushuaia"]
)
def test_a_time_zone_is_taken(zone: str) -> None:
    assert parsed(variables={"TZ": zone}).variables == {"TZ": zone}


@pytest.mark.parametrize("path", ["/etc/shadow", ":/dev/zero", "../../etc/shadow", "a/../../b", ""])
def test_a_file_is_no_time_zone(path: str) -> None:
    assert parsed(variables={"TZ": path}).variables == {}


def test_only_values_are_completed_by_the_agent() -> None:
    assert parsed(variables={"_CANHAZGPU_COMPLETE": "bash_complete"}).variables
    assert not parsed(variables={"_CANHAZGPU_COMPLETE": "bash_source"}).variables


@given(PARAMETERS)
def test_whatever_is_sent_is_taken_or_refused(parameters: dict[str, Any]) -> None:
    try:
        found = command_line_of(Call(interface.COMMAND, parameters))
    except WireError as exc:
        assert str(exc) in ("arguments", "terminal", "variables", "request")
        return
    assert all(isinstance(one, str) for one in (*found.arguments, *found.variables.values()))
