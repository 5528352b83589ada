"""The client of the task prolog: ``python3 -I -S job_check_client.py SOCKET``, run by its path.

It asks the node's agent to check the job that it is in, prints a line for the job's user, if there
is one, and exits with the state of `canhazgpu.conflict.checked_job.CheckedState`, or with 120 where
there is no agent to ask: none listens, not root, or it is of a release that cannot be asked. One
that was killed is waited for.

It runs as the job's user, who gains nothing by changing what it says: the user could as well
change CUDA_VISIBLE_DEVICES.
"""

import errno
import posix
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

if __name__ == "__main__":
    # -I and -S leave no directory of packages; this file is in one.
    sys.path.insert(0, __file__.rpartition("/canhazgpu/agent/")[0])

from canhazgpu.agent.client_connection import AgentBusy, connect_in_turn, send  # noqa: E402 - as above
from canhazgpu.agent.hook_client import (  # noqa: E402 - found only now
    INTERFACE,
    NotServed,
    decoded,
)

REFUSED, NO_AGENT = 3, 120
READY_WAIT_S = 20.0
BUSY_WAIT_S = 60.0
"""Longest wait while the agent serves as many requests of this user as it takes."""
BUSY_INTERVAL_S = 0.2
RESTART_WAIT_S = 120.0
"""Longest wait for an agent that has ended and left its socket, as one that was killed: it is
started again, which took more than 30 s on a starved machine (seen). Without it the user's code
would run on GPUs that nobody has checked."""
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.EACCES, errno.ELOOP)
NOT_UNDERSTOOD = ("org.varlink.service.MethodNotFound", "org.varlink.service.InterfaceNotFound")


def main(path: str) -> int:
    """Return the status to exit with."""
    began = time.monotonic()
    ends_at = began + BUSY_WAIT_S
    while True:
        try:
            return ask(path)
        except AgentBusy:
            if time.monotonic() >= ends_at:
                return told(REFUSED, "the node's agent is busy")
        except NotServed:
            return NO_AGENT
        except OSError as exc:
            if exc.errno == errno.ECONNREFUSED and time.monotonic() < began + RESTART_WAIT_S:
                time.sleep(BUSY_INTERVAL_S)
                continue
            if exc.errno in ABSENT:
                return NO_AGENT
            return told(REFUSED, f"the node's agent gives no answer: {exc}")
        except Exception as exc:  # whatever it is, nobody has said that the GPUs are checked
            return told(REFUSED, f"the node's agent gives no answer: {exc!r}")
        time.sleep(BUSY_INTERVAL_S)


def ask(path: str) -> int:
    """Have the job checked; return its state."""
    connection = connect_in_turn(path, int(BUSY_WAIT_S))
    send(connection, f'{{"method":"{INTERFACE}.CheckJob"}}')
    ready = received(connection, READY_WAIT_S)
    wait_s, nonce = float(ready["limit_s"]), ready["nonce"]
    if not nonce.isalnum():
        raise ValueError(nonce)
    send(connection, f'{{"method":"{INTERFACE}.Confirm","parameters":{{"nonce":"{nonce}"}}}}')
    outcome = received(connection, wait_s)
    return told(int(outcome["status"]), str(outcome["output"]))


def received(connection: "_socket.socket", wait_s: float) -> "dict[str, Any]":
    """Return the parameters of the next message; raises `AgentBusy`, `NotServed`, `OSError`."""
    connection.settimeout(wait_s)
    frame, end = b"", b""
    while not end:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionAbortedError("it closed the connection")
        frame, end, _ = (frame + chunk).partition(b"\0")
    message = decoded(frame.decode())
    error = str(message.get("error", ""))
    if error == f"{INTERFACE}.Busy":
        raise AgentBusy
    if error in NOT_UNDERSTOOD:
        raise NotServed
    if error:
        raise OSError(f"it refuses: {error.rpartition('.')[2]}")
    found = message["parameters"]
    if type(found) is not dict:
        raise ValueError(found)
    return found


def told(state: int, message: str) -> int:
    """Print the message as one line, and return the state."""
    if message:
        posix.write(1, " ".join(message.split()).encode("utf-8", "replace") + b"\n")
    return state


if __name__ == "__main__":
    posix._exit(main(sys.argv[1]))
