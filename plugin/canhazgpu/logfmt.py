"""Log lines of ``key=value`` words (logfmt), for people and programs; pure.

A value is a JSON string if it is empty or contains a space, a quote, a backslash or ``=``. A field
that is None is left out. The first word is the event: ``event=restored node=n1 gpus=GPU-a,GPU-b``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[^\s\"\\=]+")


def log_line(event: str, **fields: object) -> str:
    """Return the line; lists are joined by commas, numbers have at most three decimals."""
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
