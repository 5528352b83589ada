"""The cluster's name as it is written in an owner's token; pure."""

from __future__ import annotations

import re

_UNSAFE_CHARACTER = re.compile(r"[^A-Za-z0-9_.-]")


def owner_cluster_name(name: str) -> str:
    """Return the cluster's name, encoded for an owner's token, whose parts colons separate.

    Slurm accepts any name. Every character other than letters, digits, ``_``, ``.`` and ``-`` is
    percent-encoded, so that different names stay different.
    """
    return _UNSAFE_CHARACTER.sub(lambda found: _percent_encoded(found[0]), name)


def _percent_encoded(character: str) -> str:
    return "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
