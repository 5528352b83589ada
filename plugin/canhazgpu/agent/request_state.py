"""The states of one request of a hook, at the agent's handler and at its client; pure.

::

    handler   connected -> named -> ready -> confirmed -> decided -> done
    client    asking ---------------> committed -----------------> served

The handler begins only when the client confirmed: a client that gave up before has nothing that
runs later. The client does the work itself only before it confirmed, or when the handler is dead.
So at most one of the two ever acts.
"""

from __future__ import annotations

from enum import Enum


class HandlerState(Enum):
    """How far the handler of a request is."""

    CONNECTED = "connected"
    NAMED = "named"
    """The kernel said who the peer is, and the peer may ask this."""
    READY = "ready"
    """The attempt is recorded, and the peer was told so."""
    CONFIRMED = "confirmed"
    """The peer waits for the outcome and does nothing itself."""
    DECIDED = "decided"
    DONE = "done"
    ABANDONED = "abandoned"
    """Nothing was done for this request, and nothing will be."""


class HandlerEvent(Enum):
    """What happens to a request at its handler."""

    PEER_NAMED = "peer named"
    PEER_REFUSED = "peer refused"
    READY_SENT = "ready sent"
    PEER_CONFIRMED = "peer confirmed"
    PEER_GONE = "peer gone"
    DEADLINE_PASSED = "deadline passed"
    OUTCOME_DECIDED = "outcome decided"
    ANSWER_SENT = "answer sent"


class ClientState(Enum):
    """How far the client of a request is."""

    ASKING = "asking"
    """Not confirmed: the handler does nothing yet."""
    COMMITTED = "committed"
    """Confirmed, or perhaps so: the handler acts, and this process does not."""
    ENDING_HANDLER = "ending handler"
    """The handler took too long and is being killed."""
    SERVED = "served"
    DIRECT = "direct"
    """This process does the work itself."""
    UNDECIDED = "undecided"
    """The handler can neither be waited for nor be killed; nobody may act a second time."""


class ClientEvent(Enum):
    """What happens to a request at its client."""

    NO_AGENT = "no agent"
    """None listens, it is not root's, of another interface, refuses, or closed the connection."""
    CONFIRM_BEGUN = "confirm begun"
    """From the first byte on the handler may have it."""
    ANSWERED = "answered"
    HANDLER_DEAD = "handler dead"
    """The kernel says so; a closed connection does not."""
    TIME_OUT = "time-out"


class RequestStateError(AssertionError):
    """An event that cannot happen in its state."""


_HANDLER = {
    (HandlerState.CONNECTED, HandlerEvent.PEER_NAMED): HandlerState.NAMED,
    (HandlerState.CONNECTED, HandlerEvent.PEER_REFUSED): HandlerState.ABANDONED,
    (HandlerState.NAMED, HandlerEvent.READY_SENT): HandlerState.READY,
    (HandlerState.READY, HandlerEvent.PEER_CONFIRMED): HandlerState.CONFIRMED,
    (HandlerState.CONFIRMED, HandlerEvent.OUTCOME_DECIDED): HandlerState.DECIDED,
    (HandlerState.DECIDED, HandlerEvent.ANSWER_SENT): HandlerState.DONE,
}
_NOT_BEGUN = (HandlerState.CONNECTED, HandlerState.NAMED, HandlerState.READY)
_ENDS = (HandlerEvent.PEER_GONE, HandlerEvent.DEADLINE_PASSED)

_CLIENT = {
    (ClientState.ASKING, ClientEvent.NO_AGENT): ClientState.DIRECT,
    (ClientState.ASKING, ClientEvent.TIME_OUT): ClientState.DIRECT,
    (ClientState.ASKING, ClientEvent.HANDLER_DEAD): ClientState.DIRECT,
    (ClientState.ASKING, ClientEvent.CONFIRM_BEGUN): ClientState.COMMITTED,
    (ClientState.COMMITTED, ClientEvent.ANSWERED): ClientState.SERVED,
    (ClientState.COMMITTED, ClientEvent.HANDLER_DEAD): ClientState.DIRECT,
    # The connection is closed or silent, but the handler may live.
    (ClientState.COMMITTED, ClientEvent.NO_AGENT): ClientState.ENDING_HANDLER,
    (ClientState.COMMITTED, ClientEvent.TIME_OUT): ClientState.ENDING_HANDLER,
    (ClientState.ENDING_HANDLER, ClientEvent.ANSWERED): ClientState.SERVED,
    (ClientState.ENDING_HANDLER, ClientEvent.HANDLER_DEAD): ClientState.DIRECT,
    (ClientState.ENDING_HANDLER, ClientEvent.NO_AGENT): ClientState.ENDING_HANDLER,
    (ClientState.ENDING_HANDLER, ClientEvent.TIME_OUT): ClientState.UNDECIDED,
}


def next_handler_state(state: HandlerState, event: HandlerEvent) -> HandlerState:
    """Return the state after the event; raises `RequestStateError` if it cannot happen.

    A peer that is gone after it confirmed stops nothing here: the outcome is committed only if the
    peer still lives, and is undone otherwise.
    """
    if event in _ENDS and state in _NOT_BEGUN:
        return HandlerState.ABANDONED
    if event in _ENDS and state in (HandlerState.CONFIRMED, HandlerState.DECIDED):
        return state
    try:
        return _HANDLER[state, event]
    except KeyError:
        raise RequestStateError(f"{event.value} in state {state.value}") from None


def may_act(state: HandlerState) -> bool:
    """Return whether the handler may reserve, release or ask the scheduler for anything."""
    return state is HandlerState.CONFIRMED


def next_client_state(state: ClientState, event: ClientEvent) -> ClientState:
    """Return the state after the event; raises `RequestStateError` if it cannot happen."""
    try:
        return _CLIENT[state, event]
    except KeyError:
        raise RequestStateError(f"{event.value} in state {state.value}") from None
