"""The texts of the scripts, each put together of what it needs.

They are in folders by what they change. Texts that scripts share are in ``shared``, and what runs
at the end of each in ``at_end``.

A function that a script does not call costs the server time all the same: it is made anew each time
the script runs. So a script has no texts that it does not need, and what it may need at its end is
within a function.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

SCRIPT_DIRECTORY = Path(__file__).with_name("scripts")
PART_FOLDERS = ("shared", "at_end")
"""Have the texts that are no scripts."""
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
    return [name for name, folder in _folders().items() if folder not in PART_FOLDERS]


def script_text(name: str) -> str:
    """Return the script's text as it is loaded.

    The script's own is a function: whatever it returns, and wherever, `at_end` runs after it; if it
    fails, too.
    """
    own = own_text(name)
    parts = [*map(own_text, ALWAYS), *map(own_text, needed_texts(own))]
    for function, bodies in AT_END.items():
        parts += [f"local function {function}()\n", *map(own_text, bodies), "end\n"]
    parts += [own_text("at_end"), f"local function operation()\n{own}end\n"]
    return "".join(parts) + "return answer_of_script(operation)\n"


def needed_texts(own: str) -> list[str]:
    """Return the texts of `WHERE_NEEDED` that the head of a script names, in their order."""
    found = _NEEDS.search(own)
    named = found[1].split(" and ") if found else []
    return [name for name in WHERE_NEEDED if name in named]


def own_text(name: str) -> str:
    """Return the text of one file, by its name without the ending."""
    # Each process that opens a store's client does this: without pathlib.
    with open(f"{SCRIPT_DIRECTORY}/{_folders()[name]}/{name}.lua", encoding="utf-8") as stream:  # noqa: PTH123
        return stream.read()


@functools.cache
def _folders() -> dict[str, str]:
    """Return the folder of each text by its name."""
    found = {}
    for folder in sorted(os.listdir(SCRIPT_DIRECTORY)):  # noqa: PTH208 - as above
        for file in sorted(os.listdir(f"{SCRIPT_DIRECTORY}/{folder}")):  # noqa: PTH208
            name, ending = os.path.splitext(file)  # noqa: PTH122
            if ending == ".lua":
                found[name] = folder
    return found
