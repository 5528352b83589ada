"""The connection of people's and tasks' clients: they wait until the agent takes one more.

It imports what `hook_client` imports, and nothing more.
"""

from canhazgpu.agent.hook_client import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket


class AgentBusy(Exception):
    """It serves as many requests of this user, or of all, as it takes."""


def connect_in_turn(path: str, wait_s: int) -> "_socket.socket":
    """Return a connection to the agent; raises `NotServed`, `OSError`.

    Raises `AgentBusy` where the turn does not come within `wait_s` seconds.
    """
    try:
        return connect(path, wait_s)[0]
    except BlockingIOError as exc:
        raise AgentBusy from exc


def send(connection: "_socket.socket", message: str) -> None:
    """Send a message; an agent that refuses at once has said why before it closed."""
    try:
        connection.sendall(f"{message}\0".encode())
    except (BrokenPipeError, ConnectionResetError):
        return
