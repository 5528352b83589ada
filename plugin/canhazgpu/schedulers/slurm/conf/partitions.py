"""The partitions of a node, by the lines of ``slurm.conf``; pure.

What ``scontrol update`` changed at run time is not there, and neither is a node that registers by
itself (``slurmd -Z``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from canhazgpu.errors import InputError
from canhazgpu.schedulers.slurm.conf.hostlist import hostlist_has
from canhazgpu.schedulers.slurm.conf.parser import ConfLine

PARTITION, NODE_SET, NODE = "partitionname", "nodeset", "nodename"
ENTITIES = (NODE, NODE_SET, PARTITION)
DEFAULT, ALL = "DEFAULT", "ALL"


def node_partitions(lines: Iterable[ConfLine], node: str) -> tuple[str, ...]:
    """Return the node's partitions in the file's order.

    `lines` are those about nodes, sets of nodes and partitions, in the file's order. Raises
    `InputError` where one of them cannot be read.
    """
    given = tuple(lines)
    sets = _sets_of_node(given, node)
    found: dict[str, None] = {}
    default = ""
    for line in given:
        name = line.pairs.get(PARTITION)
        if line.leading_key != PARTITION or name is None:
            continue
        nodes = line.pairs.get("nodes", default)
        if name.upper() == DEFAULT:
            default = nodes
        elif _names(line, nodes, node, sets):
            found[name] = None
    return tuple(found)


def _node_features(lines: Iterable[ConfLine], node: str) -> frozenset[str]:
    """Return the features of the node's line, or of the ``NodeName=DEFAULT`` in front of it."""
    default, found = "", ""
    for line in lines:
        names = line.pairs.get(NODE, "")
        if line.leading_key != NODE:
            continue
        given = line.pairs.get("features", line.pairs.get("feature", default))
        if names.upper() == DEFAULT:
            default = given
        elif _hostlist_has(line, names, node):
            found = given
    return frozenset(found.split(",")) - {""}


def _sets_of_node(lines: Sequence[ConfLine], node: str) -> Mapping[str, bool]:
    """Return for each ``NodeSet`` whether it has the node, by its name or a feature of it."""
    sets = [line for line in lines if line.leading_key == NODE_SET]
    by_feature = any("feature" in line.pairs for line in sets)
    features = _node_features(lines, node) if by_feature else frozenset()
    return {
        line.pairs[NODE_SET]: line.pairs.get("feature", "") in features
        or _names(line, line.pairs.get("nodes", ""), node, {})
        for line in sets
    }


def _names(line: ConfLine, nodes: str, node: str, sets: Mapping[str, bool]) -> bool:
    """Tell whether ``Nodes=`` has the node: by name, as ALL, or through a set of nodes."""
    if nodes.upper() == ALL or any(sets.get(one, False) for one in nodes.split(",")):
        return True
    return _hostlist_has(line, nodes, node)


def _hostlist_has(line: ConfLine, names: str, node: str) -> bool:
    try:
        return hostlist_has(names, node)
    except InputError as exc:
        raise InputError(f"{line.origin}: {exc}") from exc
