"""Remove from the indexes what is too old to be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.indexes.index_keys import jobs_block, read_index_keys, user_day
from canhazgpu.ledger.store.indexes.upkeep import USER_DAYS
from canhazgpu.ledger.usage import DAY_S

if TYPE_CHECKING:
    from canhazgpu.ledger.store.session import StoreSession

MEMBERS_PER_READ = 5000


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What was removed because it was old, or no hint: whole keys, and members of others."""

    keys: int
    members: int


class IndexTrim:
    """Trims the indexes of one store; it takes the administrator's login."""

    def __init__(self, session: StoreSession, prefix: str, history_days: int) -> None:
        self._session = session
        self._prefix = prefix
        self._history_days = history_days

    def trim(self) -> Trimmed:
        """Remove what is older than it would be kept where the nodes' logins could say so."""
        with self._session.client() as client:
            today = client.time()[0] // DAY_S
        removed_keys = removed_members = 0
        for some in read_index_keys(self._session, self._prefix):
            for key, kind in some:
                if kind != "set":
                    continue
                if self._is_old_key(key, today):
                    with self._session.client() as client:
                        removed_keys += int(client.unlink(key))
                elif jobs_block(key, self._prefix) is not None:
                    removed_members += self._trim_jobs(key, today - self._history_days - 2)
        return Trimmed(removed_keys, removed_members)

    def _is_old_key(self, key: str, today: int) -> bool:
        """Tell whether a user's key is older than it is kept, or the key is no index of ours."""
        day = user_day(key, self._prefix)
        if day is not None:
            return not today - USER_DAYS <= day <= today + 1
        return jobs_block(key, self._prefix) is None

    def _trim_jobs(self, key: str, oldest_day: int) -> int:
        removed, cursor = 0, 0
        with self._session.client() as client:
            while True:
                cursor, members = cast(Any, client.sscan(key, cursor, count=MEMBERS_PER_READ))
                old = [one for one in members if not _is_kept(one, oldest_day)]
                if old:
                    removed += int(client.srem(key, *old))
                if not cursor:
                    return removed


def _is_kept(member: str, oldest_day: int) -> bool:
    parts = member.split(" ")
    if len(parts) != 3 or not (parts[0].isdecimal() and keys.is_node_name(parts[1])):
        return False
    day = parts[2]
    return day.isascii() and day.isdecimal() and len(day) < 7 and int(day) >= oldest_day
