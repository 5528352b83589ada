"""The states of a request: who may act, and that it is never both."""

from __future__ import annotations

from itertools import product

import pytest

from canhazgpu.agent.request_state import (
    ClientEvent,
    ClientState,
    HandlerEvent,
    HandlerState,
    RequestStateError,
    may_act,
    next_client_state,
    next_handler_state,
)


def after(*events: HandlerEvent) -> HandlerState:
    state = HandlerState.CONNECTED
    for event in events:
        state = next_handler_state(state, event)
    return state


def test_a_served_request() -> None:
    assert (
        after(
            HandlerEvent.PEER_NAMED,
            HandlerEvent.READY_SENT,
            HandlerEvent.PEER_CONFIRMED,
            HandlerEvent.OUTCOME_DECIDED,
            HandlerEvent.ANSWER_SENT,
        )
        is HandlerState.DONE
    )


def handler_paths(length: int) -> list[list[HandlerEvent]]:
    """Return all sequences of events of this length that can happen."""
    paths = []
    for events in product(HandlerEvent, repeat=length):
        try:
            after(*events)
        except RequestStateError:
            continue
        paths.append(list(events))
    return paths


def test_nothing_is_done_before_the_peer_confirmed() -> None:
    for path in handler_paths(4):
        for count in range(len(path) + 1):
            if may_act(after(*path[:count])):
                assert HandlerEvent.PEER_CONFIRMED in path[:count]


@pytest.mark.parametrize("end", [HandlerEvent.PEER_GONE, HandlerEvent.DEADLINE_PASSED])
def test_an_abandoned_request_stays_so(end: HandlerEvent) -> None:
    for begun in (
        [],
        [HandlerEvent.PEER_NAMED],
        [HandlerEvent.PEER_NAMED, HandlerEvent.READY_SENT],
    ):
        assert after(*begun, end) is HandlerState.ABANDONED
        for event in HandlerEvent:
            with pytest.raises(RequestStateError):
                after(*begun, end, event)


def test_the_client_acts_itself_only_where_the_handler_does_not() -> None:
    committed = {ClientState.COMMITTED, ClientState.ENDING_HANDLER}
    for state, event in product(ClientState, ClientEvent):
        try:
            reached = next_client_state(state, event)
        except RequestStateError:
            continue
        if reached is ClientState.DIRECT and state in committed:
            assert event is ClientEvent.HANDLER_DEAD


def test_a_final_state_is_final() -> None:
    for state in (ClientState.SERVED, ClientState.DIRECT, ClientState.UNDECIDED):
        for event in ClientEvent:
            with pytest.raises(RequestStateError):
                next_client_state(state, event)
