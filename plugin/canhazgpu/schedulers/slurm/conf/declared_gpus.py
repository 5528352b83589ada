"""The GPUs that ``Gres=`` of ``slurm.conf`` gives a node; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.schedulers.slurm.conf.parser import ConfLine

GPU = "gpu"

_NO_CONSUME = "no_consume"
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_COUNT = re.compile(r"(\d{1,18})([kmgtp]?)(i?b)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DeclaredGpus:
    """The number of a node's GPUs of one type; the type is empty if ``Gres=`` names none."""

    kind: str
    count: int


def node_line(lines: Iterable[ConfLine], node: str) -> tuple[ConfLine, str] | None:
    """Return the node's line in ``slurm.conf`` and its ``Gres=``, None for an unknown node.

    Without one of its own, the line has the ``Gres=`` of the ``NodeName=DEFAULT`` in front of it.
    Raises `InputError` for a line that cannot be read.
    """
    default, found = "", None
    for line in lines:
        names = line.pairs.get("nodename", "")
        if names.upper() == "DEFAULT":
            default = line.pairs.get("gres", default)
        elif names and names_node(line, names, node):
            if line.rest:
                raise InputError(f"{line.origin}: cannot read {line.rest[:80]!r}")
            if found:
                raise InputError(f"{line.origin}: {node} is also in {found[0].origin}")
            found = line, line.pairs.get("gres", default)
    return found


def names_node(line: ConfLine, names: str, node: str) -> bool:
    """Tell whether the line's list of names has this node; raises `InputError` for no list."""
    if names == node:
        return True
    try:
        return node in expand_hostlist(names)
    except InputError as exc:
        raise InputError(f"{line.origin}: {exc}") from exc


def parse_declared_gpus(gres: str) -> tuple[DeclaredGpus, ...]:
    """Return the GPUs in the value of ``Gres=``, type by type in the order of their first mention.

    As Slurm reads it (``_get_gres_cnt``, measured): ``gpu`` alone is one GPU and ends the list; a
    last word that begins with a digit is the count, any other a type; an unreadable count ends
    the list. Raises `InputError` for GPUs of which some have a type: slurmd does not start.
    """
    total, by_kind = 0, dict[str, int]()
    for item in gres.split(","):
        if item == GPU:
            total = 1
            break
        if not item.startswith(f"{GPU}:"):
            continue
        unbound = item.rpartition("(")[0] if "(" in item else item
        *kinds, last = unbound.split(":")[1:] or [""]
        count = 1
        if last[:1].isascii() and last[:1].isdigit():
            counted = parse_count(last)
            if counted is None:
                break
            count = counted
        else:
            kinds.append(last)
        total += count
        for kind in kinds:
            if kind and kind.lower() != _NO_CONSUME:
                by_kind[kind] = by_kind.get(kind, 0) + count
    if by_kind and total > sum(by_kind.values()):
        raise InputError(f"Gres={gres[:80]}: some GPUs have a type and others have none")
    typed = tuple(DeclaredGpus(kind, count) for kind, count in by_kind.items())
    return typed or ((DeclaredGpus("", total),) if total else ())


def parse_count(text: str) -> int | None:
    """Return a count with Slurm's suffixes (``k`` is 1024, ``kb`` 1000), None for no count."""
    found = _COUNT.fullmatch(text)
    if found is None or (found[3] and not found[2]):
        return None
    base = 1000 if (found[3] or "").lower() == "b" else 1024
    multiple: int = base ** _POWERS[found[2].lower()]
    return int(found[1]) * multiple
