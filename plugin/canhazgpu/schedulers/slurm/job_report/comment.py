"""What a job made of its GPUs, as one line of its AdminComment; pure.

``canhazgpu: GPU 0 H100: peak 71 of 80 GB, 83 % busy; GPU 1: never used``. Of a job of several nodes
each node has a part: ``canhazgpu: n1: GPU 0 …; GPU 1 … | n2: GPU 0 …``. What Slurm gives back may
be in lower case: sacctmgr of 22.05 does that to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from canhazgpu.gpu.use_text import use_texts

PREFIX = "canhazgpu: "
"""With it a comment is ours; any other comment is left alone."""
MAX_NODES = 8
"""Of a job of more nodes, only one is told of."""
MAX_LENGTH = 1000
_SEPARATOR = " | "
_PART = re.compile(r"([a-z0-9._-]{1,64}): (gpu [^|]*)", re.ASCII | re.IGNORECASE)
_STRANGE = re.compile(r"[^A-Za-z0-9 .,:;%_()+-]", re.ASCII)
_MODELS = (
    re.compile(r"[A-Z]{1,3}[0-9]{1,4}[A-Za-z]{0,2}", re.ASCII),
    re.compile(r"[0-9]{4}[A-Za-z]{0,2}", re.ASCII),
)
"""H100, L40S, GB200; else 4090."""


def use_line(use: Mapping[str, Any], products: Mapping[str, str]) -> str:
    """Return the line of one node, "" where nothing is known; `products` are names by GPU index."""
    told = {}
    for text in use_texts(use):
        gpu, _, rest = text.partition(": ")
        index = gpu.removeprefix("GPU ")
        model = short_product(products.get(index, ""))
        told[index] = f"{gpu} {model}: {rest}" if model else text
    indices = sorted(told, key=lambda one: [int(part) for part in one.split(":")])
    return _STRANGE.sub("?", "; ".join(told[one] for one in indices))[:MAX_LENGTH]


def short_product(name: str) -> str:
    """Return ``H100`` of ``NVIDIA H100 80GB HBM3``, "" where the name has no such word."""
    words = re.split("[ -]", name[:200])
    found = (word for model in _MODELS for word in words if model.fullmatch(word))
    return next(found, "")


def is_ours(comment: str) -> bool:
    """Tell whether the comment may be replaced: it is empty, or canhazgpu's."""
    return not comment.strip() or comment.lower().startswith(PREFIX)


def tells(comment: str, node: str, line: str) -> bool:
    """Tell whether the comment has this line of this node already."""
    return _parts(comment).get(node.lower(), "").lower() == line.lower()


def merged_comment(comment: str, node: str, line: str, node_count: int) -> str:
    """Return the comment with this node's line beside those of the job's other nodes."""
    if node_count == 1:
        return f"{PREFIX}{line}"
    if node_count > MAX_NODES:
        return f"{PREFIX}{node}, one of {node_count} nodes: {line}"
    known = {**_parts(comment), node.lower(): line}
    return PREFIX + _SEPARATOR.join(f"{one}: {known[one]}" for one in sorted(known, key=_in_order))


def _in_order(node: str) -> list[tuple[bool, int, str]]:
    """Have n2 before n10."""
    parts = re.split(r"([0-9]{1,18})", node)
    return [(one.isdecimal(), int(one) if one.isdecimal() else 0, one) for one in parts]


def _parts(comment: str) -> dict[str, str]:
    """Return the lines by node, whose names are in lower case."""
    found = (_PART.fullmatch(one) for one in comment[len(PREFIX) :].split(_SEPARATOR))
    return {one[1].lower(): one[2] for one in found if one}
