"""A live view whose frames the node's agent makes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from canhazgpu.cli.status_display.agent_view import AgentView

TAKEN = "canhazgpu: GPU 1 of n1 was taken from you 1s ago by root: maintenance\n"


def test_what_the_agent_tells_once_is_kept_for_the_end_of_the_view() -> None:
    told = iter([TAKEN])

    def ask(_words: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        yield {"output": "", "errors": next(told, "")}
        shown = {"lines": ["a"], "summary": False, "filter": "", "error": "", "exit_status": 0}
        yield {"output": json.dumps(shown), "errors": "", "status": 0}

    view = AgentView(ask, ["status", "--watch"], 2.0)
    for _ in range(2):
        assert view.read_frame().lines(None) == ["a"]
    assert (view.told, view.fault) == (TAKEN, None)
