"""The settings of a model that one argument holds: ``pretrained=NAME,dtype=float``, or JSON; pure.

Source: https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/interface.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

MODEL_KEYS = ("pretrained", "model_name", "model", "model_path", "path", "load")
"""Keys whose value is the model, the most specific first."""

_SETTING = re.compile(r"(?:^|,)\s*([a-z_]+)=([^,]*)")


def models_in_arguments(text: str) -> Iterator[str]:
    """Yield the values of an argument's settings that name the model."""
    settings = _json_settings(text) if text.lstrip().startswith("{") else _text_settings(text)
    for key in MODEL_KEYS:
        if value := settings.get(key):
            yield value


def _json_settings(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _text_settings(text: str) -> dict[str, str]:
    return {key: value.strip("\"' ") for key, value in _SETTING.findall(text)}
