"""The node's service over adapters in memory, as the commands open it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fakes.no_orders import NoOrders

from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.service import InProcessService

OpenService = Callable[[Mapping[str, str], str | None, Mapping[str, str]], InProcessService]


def service_opener(**adapters: Any) -> OpenService:
    """Return what opens the service with these adapters; its clock stands still."""

    def open_service(
        environ: Mapping[str, str], config_file: str | None, overrides: Mapping[str, str]
    ) -> InProcessService:
        parts = {"clock": lambda: 5.0, "orders": NoOrders, **adapters}
        return InProcessService(Adapters(environ, config_file, overrides, **parts))

    return open_service
