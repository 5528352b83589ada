"""A node's accounts in files of a test's own, for an agent that is a process of its own."""

from __future__ import annotations

from pathlib import Path

ANN, BOB, EVE = 4001, 4002, 4003
FIRST_OF_ANN, FIRST_OF_ROOT = 4_100_000_000, 4_100_200_000
OTHERS = range(4100, 4200)
"""Users beside these three."""
PASSWD = "".join(
    f"{name}:x:{uid}:{uid}::/:/bin/sh\n"
    for name, uid in (("root", 0), ("ann", ANN), ("bob", BOB), ("eve", EVE))
) + "".join(f"user{uid}:x:{uid}:{uid}::/:/bin/sh\n" for uid in OTHERS)
FILES = {
    "passwd": PASSWD,
    "group": f"root:x:0:\nstaff:x:5000:\nann:x:{ANN}:\n",
    "subuid": f"ann:{FIRST_OF_ANN}:65536\nroot:{FIRST_OF_ROOT}:65536\n",
}


def write_accounts(directory: Path) -> str:
    """Write the files; return Python that has a process look there, not in /etc."""
    directory.mkdir()
    for name, text in FILES.items():
        (directory / name).write_text(text)
    return (
        "from pathlib import Path\n"
        "from canhazgpu.agent.callers import account_files, admitted_user\n"
        f"account_files.AccountFiles.__init__.__defaults__ = (Path({str(directory)!r}),)\n"
        f"admitted_user.AdmittedUsers.__init__.__defaults__ = (Path({str(directory)!r}),)\n"
    )
