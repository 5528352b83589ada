"""What of the status is shown and how, and what of it is to be asked for then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from canhazgpu.gpu.usage import GpuState

if TYPE_CHECKING:
    from canhazgpu.status.status_filter import StatusFilter
    from canhazgpu.status.user_filter import User


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """What the options of the command say.

    `filter` chooses what is shown, None: everything. With `mine` it is only what the caller holds,
    uses or waits for. `filter_text` is the filter as options of the command. `summary` is whether
    each node is one line; None: where a terminal has no room for the tables of several nodes.
    """

    as_json: bool = False
    watching: bool = False
    wide: bool = False
    coloured: bool = False
    mine: bool = False
    filter: StatusFilter | None = None
    filter_text: str = ""
    summary: bool | None = None

    def brief_above(self, height: int | None) -> int | None:
        """Return above how many nodes `StatusRequest.brief_above` suffices; None: for no number.

        The summary, and the tables of GPUs that nobody holds, show the same by brief views. A
        terminal of `height` lines has no room for the tables of more nodes than a quarter of that.
        """
        if self.mine:
            return None
        if self.summary:
            return 0
        if self.as_json or self.wide:
            return None
        if self.filter is None:
            return None if height is None or self.summary is False else height // 4 + 1
        return 0 if self.filter.states and GpuState.RESERVED not in self.filter.states else None

    def counts_above(self, height: int | None) -> int | None:
        """Return above how many nodes counts of their GPUs suffice, None for no number.

        They do for the summary, and for a terminal that shows it by itself.
        """
        if self.mine or not self._is_told_by_heads:
            return None
        if self.summary:
            return 0
        if self.as_json or self.wide or self.summary is False or height is None:
            return None
        return height // 4 + 1

    def tables_suffice(self, width: int | None) -> bool:
        """Whether a node's table is enough: see `StatusRequest`.

        `width` is that of the terminal, None if there is none.
        """
        has_other_form = self.as_json or self.watching or self.coloured
        is_table = width is None and not (has_other_form or self.mine or self.summary)
        return is_table and self._is_told_by_heads

    @property
    def texts_suffice(self) -> bool:
        """Whether a node's JSON is enough: see `StatusRequest`."""
        return self.as_json and not (self.mine or self.summary) and self._is_told_by_heads

    @property
    def _is_told_by_heads(self) -> bool:
        return self.filter is None or not self.filter.users

    @property
    def of_users(self) -> tuple[User, ...] | None:
        """Of whom alone something is shown, beside the caller; None where all nodes are asked.

        Whether a user is known whom this machine does not know, all nodes tell.
        """
        users = self.filter.users if self.filter else ()
        if not (users or self.mine) or any(one.uid is None for one in users):
            return None
        return users

    @property
    def shown(self) -> StatusFilter | None:
        """What is shown at most, whoever asks: see `StatusRequest`."""
        return replace(self.filter, users=()) if self.filter and self.mine else self.filter
