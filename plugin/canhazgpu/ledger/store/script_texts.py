"""The texts of the scripts, each put together of what it needs.

A function that a script does not call costs the server time all the same: it is made anew each time
the script runs. So a script has no texts that it does not need, and what it may need at its end is
within a function.
"""

from __future__ import annotations

import re
from pathlib import Path

SCRIPT_DIRECTORY = Path(__file__).with_name("scripts")
ALWAYS = ("common", "usage", "reservations")
"""Stand before each script."""
WHERE_NEEDED = ("entries", "grants")
"""Come next in scripts whose head says ``-- Needs entries and grants.``, or one of them."""
AT_END = {
    "write_history": ("short_names", "history_size", "history"),
    "write_head": ("counts", "head"),
}
"""Functions that ``at_end`` calls where there is something to write: their bodies."""

_NEEDS = re.compile(r"^-- Needs ([\w ]+)\.$", re.MULTILINE)


def script_names() -> list[str]:
    """Return the names of all scripts; texts that they share are none."""
    bodies = [name for texts in AT_END.values() for name in texts]
    shared = {*ALWAYS, *WHERE_NEEDED, *bodies, "at_end"}
    return [path.stem for path in SCRIPT_DIRECTORY.glob("*.lua") if path.stem not in shared]


def script_text(name: str) -> str:
    """Return the script's text as it is loaded.

    The script's own is a function: whatever it returns, and wherever, `at_end` runs after it; if it
    fails, too.
    """
    own = _text(name)
    parts = [*map(_text, ALWAYS), *map(_text, needed_texts(own))]
    for function, bodies in AT_END.items():
        parts += [f"local function {function}()\n", *map(_text, bodies), "end\n"]
    parts += [_text("at_end"), f"local function operation()\n{own}end\n"]
    return "".join(parts) + "return answer_of_script(operation)\n"


def needed_texts(own: str) -> list[str]:
    """Return the texts of `WHERE_NEEDED` that the head of a script names, in their order."""
    found = _NEEDS.search(own)
    named = found[1].split(" and ") if found else []
    return [name for name in WHERE_NEEDED if name in named]


def _text(name: str) -> str:
    return SCRIPT_DIRECTORY.joinpath(f"{name}.lua").read_text("utf-8")
