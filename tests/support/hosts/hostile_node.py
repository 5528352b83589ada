"""A node of which everything that somebody can choose is chosen to do harm where it is shown."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from hosts.cli_node import CliNode, make_cli_node
from ledger_samples import job, manual, run, waiter

import fake_nvml

# Each part: commands to a terminal, to syslog or to a shell; another direction of the text; a line
# or a row of its own; marks that cover the lines above; half of a character; a formula.
EVIL = (
    "=evil\x1b[2J\x1b]0;owned\x07\x9b31m\x90q\x9c\x00"
    "\u202eright\u2066to\u200fleft\ufeff\u200b"
    "\r\nFAKE row\u2028FAKE row\u2029FAKE row\x0bFAKE row\x85FAKE row"
    "Z" + "\u0301" * 60 + "\U000e0041\ud800\ue000"
    "$(touch /tmp/owned)`id`';\"|%s{0}<b>"
)
LONG = "x" * 130_000
"""As long as a job's name can be: the kernel gives a program no longer argument."""
UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
PROCESS_NAME = "ev\x1b[2J\nil\u202e"
"""What the kernel keeps of a process's name: 15 bytes."""


def unsafe_parts(text: str) -> list[str]:
    """What of an output would command a terminal, or look like a row of its own."""
    found = [
        f"U+{ord(one):04X}" for one in text if one != "\n" and unicodedata.category(one) in UNSAFE
    ]
    found += [line[:40] for line in text.splitlines() if line.lstrip().startswith("FAKE")]
    marks = 0
    for one in text:
        marks = marks + 1 if unicodedata.category(one) in ("Mn", "Me") else 0
        if marks > 3:
            found.append("many combining marks")
            break
    return found


@contextmanager
def hostile_node(text: str) -> Iterator[CliNode]:
    """Node n1 with a job, a run, a reservation, an intruder, a quarantine and a waiter; and n2."""
    with make_cli_node(5) as here:
        # The driver has room for 95 bytes; a GPU with a longer name could not be read at all.
        name = text.replace("\n", " ").replace("\0", "").encode("utf-8", "ignore")[:90]
        here.node.gpu(0).set("name", name.decode("utf-8", "ignore"))
        # Of what an operator writes, and of an account's name, there is a longest length.
        user = reason = text[:300]
        claims = {
            0: replace(job(12), user=user, job_name=text),
            1: replace(manual(1), user=user, note=text),
            2: replace(run(1), user=user, note=text, owner=f"run:{text[:50]}"),
        }
        ledger = here.ledger()
        for index, claim in claims.items():
            here.reserve(claim, index)
        found = here.observe()
        uuids = [gpu.uuid for gpu in found.scan.gpus]
        ledger.quarantine("n1", uuids[3], reason, user)
        ledger.join_queue("n1", waiter(replace(job(13), user=user)))
        ledger.join_queue("n1", waiter(replace(manual(2), user=user, owner=f"manual:{text[:50]}")))
        ledger.reserve_given(replace(job(14), user=user), [uuids[3]], found)
        ledger.release("n1", job(14).owner, reason, by=user)
        with here.redis.client() as raw:
            raw.sadd("canhazgpu:nodes", text.encode("utf-8", "surrogatepass")[:200])
        with fake_nvml.start_gpu_process(here.node.gpu(4), 8000, name=PROCESS_NAME):
            yield here
