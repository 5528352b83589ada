"""The client of Slurm's hooks: ``python3 -I -S hook_client.py SOCKET METHOD``, run by its path.

It asks the node's agent to do a hook's work, and exits with the hook's status, or with one of

    120  do it yourself: nothing was done, and nothing will be
    121  do it yourself, as the second run: what began is dead
    122  it can neither be waited for nor be killed: nobody may do it a second time

Starting Python is most of its time, so it imports what is built into Python alone; its states are
those of ``request_state.py``.
"""

# Built-in modules and one small extension: nothing that is Python source.
import _json
import _signal  # type: ignore[import-not-found]
import _socket
import posix
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOT_SERVED, HANDLER_DEAD, UNDECIDED = 120, 121, 122
INTERFACE = "io.canhazgpu.Agent"
NEEDED_VERSION = 1
READY_WAIT_S = 6.0
"""Longest wait for a handler, which may wait for a slow share for 4 s: a starved agent costs a hook
so much, and a stopped one `LOOK_INTERVAL_S`."""
LOOK_INTERVAL_S = 1.0
"""How often it is seen whether the agent, or then its handler, is stopped."""
KILL_WAIT_S = 5.0
MAX_ANSWER_BYTES = 1 << 20
PREFIXES = (b"SLURM", b"CANHAZGPU_", b"HOOK_")
NAMES = (b"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", b"TZ")
MAX_LINKS = 20
MAX_ADDRESS_BYTES = 100
SIGKILL = 9
TYPE_MASK, SOCKET_TYPE, LINK_TYPE = 0o170000, 0o140000, 0o120000
STICKY, OTHERS_WRITE = 0o1000, 0o022
PEER_CREDENTIALS_BYTES = 12


class NotServed(Exception):
    """The agent is not asked, or has not begun."""


class _Decoding:
    """How `_json` reads: as the module `json` does."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - `_json` takes it from here


def main(path: str, method: str) -> int:
    """Return the status to exit with."""
    try:
        connection, listener = connect(path)
        pidfd, limit_s, pid = ask(connection, listener, method)
    except Exception:  # whatever it is, nothing has begun
        return NOT_SERVED
    try:
        answer = confirmed_answer(connection, pidfd, pid, limit_s)
    except Exception:  # whatever it is, the handler may have begun
        answer = None
    outcome = None if answer is None else answer.get("parameters")
    if type(outcome) is not dict or type(outcome.get("status")) is not int:
        return end_handler(pidfd)
    for descriptor, written in ((1, outcome.get("output", "")), (2, outcome.get("errors", ""))):
        pass_on(descriptor, str(written).encode("utf-8", "surrogateescape"))
    return int(outcome["status"])


def connect(path: str, turn_wait_s: int = 0) -> tuple[_socket.socket, int]:
    """Return a connection to the agent, and its pid; raises `NotServed` where it is not root's.

    Where more ask than fit into the agent's queue of connections, it waits so long for its turn.
    Raises `BlockingIOError` where that does not come.
    """
    found = posix.lstat(resolved(path))
    if found.st_mode & TYPE_MASK != SOCKET_TYPE:
        raise NotServed
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    if turn_wait_s:
        # In the kernel's own queue: who comes again and again instead is overtaken by others.
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, timeval(turn_wait_s))
    else:
        connection.settimeout(READY_WAIT_S)
    if len(path) <= MAX_ADDRESS_BYTES:
        connection.connect(path)
    else:
        directory, _, name = path.rpartition("/")
        opened = posix.open(directory, posix.O_PATH | posix.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{opened}/{name}")
        finally:
            posix.close(opened)
    connection.settimeout(READY_WAIT_S)
    credentials = connection.getsockopt(
        _socket.SOL_SOCKET, _socket.SO_PEERCRED, PEER_CREDENTIALS_BYTES
    )
    if int.from_bytes(credentials[4:8], sys.byteorder) != 0:
        raise NotServed
    return connection, int.from_bytes(credentials[0:4], sys.byteorder)


def timeval(seconds: int) -> bytes:
    """Return a ``struct timeval`` of whole seconds: two numbers of the machine's word length."""
    size = 8 if sys.maxsize > 1 << 32 else 4
    return seconds.to_bytes(size, sys.byteorder) + bytes(size)


def resolved(path: str, links: int = MAX_LINKS) -> str:
    """Return the path without symbolic links; raises `NotServed` where others can change it."""
    done = ""
    names = [name for name in path.split("/") if name]
    for place, name in enumerate(names):
        here = f"{done}/{name}"
        found = posix.lstat(here)
        kind = found.st_mode & TYPE_MASK
        if found.st_uid != 0 or name == ".." or not links:
            raise NotServed
        if kind == LINK_TYPE:
            target = posix.readlink(here)
            start = target if target.startswith("/") else f"{done}/{target}"
            return resolved("/".join([start, *names[place + 1 :]]), links - 1)
        if kind != SOCKET_TYPE and found.st_mode & OTHERS_WRITE and not found.st_mode & STICKY:
            raise NotServed
        done = here
    return done


def ask(connection: _socket.socket, listener: int, method: str) -> tuple[int, float, int]:
    """Have a handler prepare the work; return its pidfd, its time limit (s) and its pid."""
    quoted = _json.encode_basestring_ascii
    variables = ",".join(
        f"{quoted(text(name))}:{quoted(text(value))}"
        for name, value in posix.environ.items()
        if name.startswith(PREFIXES) or name in NAMES
    )
    connection.sendall(
        f'{{"method":"{INTERFACE}.{method}","parameters":{{"environment":{{{variables}}}}}}}\0'.encode()
    )
    ready = received(connection, None, time.monotonic() + READY_WAIT_S, listener)
    if ready is None or "error" in ready or ready["parameters"]["interface"] < NEEDED_VERSION:
        raise NotServed
    pid = ready["parameters"]["pid"]
    pidfd = posix.pidfd_open(pid)
    # A pid of another pid namespace, or one that was given again, is no child of the agent.
    if int(stat_of(pid)[1]) != ready["parameters"]["agent"]:
        raise NotServed
    return pidfd, float(ready["parameters"]["limit_s"]), pid


def confirmed_answer(
    connection: _socket.socket, pidfd: int, pid: int, limit_s: float
) -> "dict[str, Any] | None":
    """Have the handler begin; return its answer, None where none comes."""
    connection.sendall(f'{{"method":"{INTERFACE}.Confirm"}}\0'.encode())
    ends_at = time.monotonic() + limit_s
    return received(connection, pidfd, ends_at, pid)


def received(
    connection: _socket.socket, pidfd: int | None, ends_at: float, pid: int
) -> "dict[str, Any] | None":
    """Return the next message; None where the handler ended, is stopped, or the time is over.

    What has come by then is read: a handler that sent it may be at another hook's request.
    """
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if pidfd is not None:
        poll.register(pidfd, select.POLLIN)
    text_so_far = b""
    while True:
        left_s = ends_at - time.monotonic()
        wait_ms = min(left_s, LOOK_INTERVAL_S) * 1000 + 1 if left_s > 0 else 0
        ready = {descriptor for descriptor, _ in poll.poll(wait_ms)}
        if connection.fileno() in ready:
            chunk = connection.recv(65536)
            text_so_far += chunk
            frame, end, _ = text_so_far.partition(b"\0")
            if end:
                return decoded(frame.decode())
            if not chunk or len(text_so_far) > MAX_ANSWER_BYTES:
                return None
        elif ready or left_s <= 0 or is_stopped(pid):
            # Dead, and all that it sent is read; or over its time, or stopped.
            return None


def decoded(frame: str) -> "dict[str, Any]":
    """Return the JSON object of a frame."""
    message, _ = _json.make_scanner(_Decoding)(frame, 0)  # type: ignore[arg-type]
    if type(message) is not dict:
        raise ValueError(frame[:40])
    return message


def end_handler(pidfd: int) -> int:
    """Kill the handler, if it lives; return what the hook is to do."""
    try:  # noqa: SIM105 - contextlib is Python source
        _signal.pidfd_send_signal(pidfd, SIGKILL)
    except OSError:
        pass  # it has ended
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if poll.poll(KILL_WAIT_S * 1000):
        return HANDLER_DEAD
    posix.write(2, b"canhazgpu: the agent's process for this hook does not end, killed or not\n")
    return UNDECIDED


def pass_on(descriptor: int, written: bytes) -> None:
    """Write what the hook wrote; a log that is closed loses it."""
    try:
        while written:
            written = written[posix.write(descriptor, written) :]
    except OSError:
        return


def stat_of(pid: int) -> list[bytes]:
    """Return the state and what follows of /proc/PID/stat."""
    opened = posix.open(f"/proc/{pid}/stat", posix.O_RDONLY)
    try:
        return posix.read(opened, 4096).rpartition(b")")[2].split()
    finally:
        posix.close(opened)


def is_stopped(pid: int) -> bool:
    """Return whether the process is stopped; one that cannot be seen is not."""
    try:
        return stat_of(pid)[0] == b"T"
    except OSError:
        return False


def text(value: bytes) -> str:
    """Return a variable's text; bytes that are not UTF-8 survive."""
    return value.decode("utf-8", "surrogateescape")


if __name__ == "__main__":
    posix._exit(main(sys.argv[1], sys.argv[2]))
