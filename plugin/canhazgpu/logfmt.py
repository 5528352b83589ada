"""One line for one decision, in ``key=value`` words for people and programs; pure.

A value with a space, a quote, a backslash or ``=`` in it is a JSON string; so is an empty one. What
is None is left out. The first word names the event: ``event=restored node=n1 gpus=GPU-a,GPU-b``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[^\s\"\\=]+")


def log_line(event: str, **fields: object) -> str:
    """Return the line; lists become words joined by commas, numbers keep three decimals at most."""
    words = {"event": event, **fields}
    return " ".join(f"{name}={_word(value)}" for name, value in words.items() if value is not None)


def _word(value: object) -> str:
    if isinstance(value, float):
        text = f"{value:.3f}".rstrip("0").rstrip(".")
    elif isinstance(value, Iterable) and not isinstance(value, str):
        text = ",".join(map(str, value))
    else:
        text = str(value)
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if _PLAIN.fullmatch(plain) else json.dumps(plain, ensure_ascii=False)
