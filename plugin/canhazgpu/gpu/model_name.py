"""How a model's name is shortened to be shown; pure."""

from __future__ import annotations


def short_model(name: str, width: int = 16) -> str:
    """Return the name without its publisher and format, at most `width` characters long."""
    short = name.rstrip("/").rpartition("/")[2].lower().removesuffix(".gguf").removesuffix("-hf")
    return short if len(short) <= width else f"{short[: width - 1]}…"
