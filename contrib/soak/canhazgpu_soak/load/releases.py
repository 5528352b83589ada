"""When a reservation ended because its user released its GPUs, maybe meaning an earlier one; pure.

`release` names GPUs: where a reservation is over, and its user has got a GPU of it anew, it is the
new reservation that is released.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf


@dataclass(slots=True)
class Release:
    """A command of a user that released GPUs of a node at some time from `began` to `until`."""

    user: str
    node: str
    gpus: frozenset[str]
    began: float
    until: float = inf

    def may_concern(self, user: str, node: str, gpus: Sequence[str], since: float) -> bool:
        """Tell whether it may have released one of these GPUs at `since` or later."""
        is_theirs = (self.user, self.node) == (user, node)
        return is_theirs and not self.gpus.isdisjoint(gpus) and self.until >= since


def held_until(
    user: str,
    node: str,
    gpus: Sequence[str],
    asked: float,
    ends: float,
    releases: Iterable[Release],
) -> float:
    """Return until when the user certainly had the GPUs that were asked for at `asked`."""
    began = (one.began for one in releases if one.may_concern(user, node, gpus, asked))
    return min([ends, *began])
