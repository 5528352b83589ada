"""Pure: the cluster's name as a part of an owner's token."""

from __future__ import annotations

import re

_UNSAFE_CHARACTER = re.compile(r"[^A-Za-z0-9_.-]")


def owner_cluster_name(name: str) -> str:
    """Return the cluster's name as a word of owners, whose parts are parted by colons.

    Slurm takes any name: what is no letter, digit, ``_``, ``.`` or ``-`` becomes ``%`` and hex
    digits, so that no two names give the same word.
    """
    return _UNSAFE_CHARACTER.sub(lambda found: _percent_encoded(found[0]), name)


def _percent_encoded(character: str) -> str:
    return "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
