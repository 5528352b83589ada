"""A user's program that asks the agent for as much as it can, until it is killed.

`python -I flood.py WHAT SOCKET COUNT GPU`. It says `flood` once it has begun.

- ``connections``: so many at a time, each with half a request, again as soon as one is cut off.
- ``waiters``: so many that wait for the GPU, which somebody has, again as soon as one is refused.
- ``history``: so many at a time that reserve the GPU and release it, again and again.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import Any

HALF = b'{"method":"io.canha'
HOLDS = ("reserve", "--nonblock", "--duration", "1h", "--gpu-ids")
WAITS = ("reserve", "--wait", "1h", "--duration", "1h", "--gpu-ids")


def connected(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    return made


def answer(agent: socket.socket) -> dict[str, Any]:
    found = b""
    while not found.endswith(b"\0"):
        chunk = agent.recv(65536)
        if not chunk:
            return {}
        found += chunk
    return dict(json.loads(found.split(b"\0")[0]))


def call(agent: socket.socket, method: str, **parameters: object) -> None:
    message = {"method": f"io.canhazgpu.Agent.{method}", "parameters": parameters, "more": True}
    agent.sendall(json.dumps(message).encode() + b"\0")


def command(path: str, *words: str) -> None:
    """Have the agent carry a command out, as the command's client does; waits for its end."""
    with connected(path) as agent:
        # Without a name of its own, it would be the same request as the process's others.
        call(agent, "Command", arguments=words, request=os.urandom(16).hex())
        nonce = answer(agent).get("parameters", {}).get("nonce")
        if nonce is None:
            time.sleep(0.05)
            return
        call(agent, "Proceed", nonce=nonce)
        while agent.recv(65536):
            pass


def again_and_again(path: str, *commands: tuple[str, ...]) -> None:
    while True:
        for words in commands:
            with contextlib.suppress(OSError, ValueError):
                command(path, *words)


def keep_connections(path: str, count: int) -> None:
    kept: list[socket.socket] = []
    while True:
        while len(kept) < count:
            one = connected(path)
            kept.append(one)
            with contextlib.suppress(OSError):
                one.sendall(HALF)
        for one in select.select(kept, [], [], 0.2)[0]:
            kept.remove(one)
            one.close()


def main() -> None:
    what, path, count, gpu = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    if what == "connections":
        threading.Thread(target=keep_connections, args=(path, count), daemon=True).start()
    else:
        commands = ((*WAITS, gpu),) if what == "waiters" else ((*HOLDS, gpu), ("release",))
        for _ in range(count):
            words = (path, *commands)
            threading.Thread(target=again_and_again, args=words, daemon=True).start()
    sys.stdout.write("flood\n")
    sys.stdout.flush()
    signal.pause()


main()
