"""The short form of a model's name, for tables; pure."""

from __future__ import annotations

import re

MODEL_WIDTH = 16
"""Columns of the table's MODEL."""

_PACKAGING = re.compile(
    r"(?:[-._](?:hf|gguf|ggml|gptq|awq|exl2|mlc|mlx|onnx|bnb|int[48]|fp(?:4|8|16|32)|bf16|f16|f32"
    r"|nvfp4|mxfp4|dynamic|quantized|[2-8]bit|w\d+a\d+|(?:ud-)?i?q\d(?:_[a-z0-9]+)*|q\df16_\d))+$"
)


def short_model_name(name: str, width: int = MODEL_WIDTH) -> str:
    """Return a model's name as a table shows it: ``llama-2-7b-chat``.

    It is in lower case, without the organisation and without suffixes of format and quantisation
    (-hf, -GGUF, -AWQ). A name that is still wider than `width` is cut with ``...``.
    """
    plain = name.rpartition("/")[2].partition(":")[0].lower()
    short = _PACKAGING.sub("", plain) or plain
    return short if len(short) <= width else short[: max(width - 3, 0)] + "..."[:width]
