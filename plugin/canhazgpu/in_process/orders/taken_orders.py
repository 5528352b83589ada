"""Which orders this node has taken: the store may return to a copy in which they still wait."""

from __future__ import annotations

import json
from pathlib import Path

from canhazgpu.errors import NodeStateError
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.node.state_files import read_if_owned, write_atomically
from canhazgpu.service.orders import MAX_SKEW_S

FILE = "orders.json"


class TakenOrders:
    """The ids of orders that are not void yet; for the one process that carries orders out."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE

    def take(self, order_id: str, void_at: float, now: float) -> bool:
        """Note that an order is carried out from now on; return False if it was taken before.

        Times are the store's, in seconds. Raises `NodeStateError`: then it is not to be carried
        out, for nobody would know that it was.
        """
        try:
            # One that is void is refused for that; the store may have another clock tomorrow.
            known = {one: at for one, at in self._read().items() if at + MAX_SKEW_S > now}
            if order_id in known:
                return False
            known[order_id] = void_at
            write_atomically(self._path, json.dumps(known).encode())
        except OSError as exc:
            raise NodeStateError(f"cannot keep {self._path}: {exc.strerror}") from exc
        return True

    def _read(self) -> dict[str, float]:
        try:
            found = json.loads(read_if_owned(self._path) or b"{}")
            return {str(one): float(at) for one, at in found.items()}
        except (*RECORD_ERRORS, AttributeError):
            return {}
