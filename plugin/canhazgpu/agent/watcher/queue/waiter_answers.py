"""What a waiting client is told: the port to whoever speaks with it; bytes of its connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from canhazgpu.allocation.allocator import Grant
from canhazgpu.allocation.refusal import Refusal
from canhazgpu.config.schema import Config
from canhazgpu.errors import CanhazgpuError
from canhazgpu.in_process.watching.waiting_request import WaitingRequest


class WaiterAnswers(Protocol):
    """The answers to one client; each returns bytes for its connection, none for nothing to say.

    After a grant, a refusal or a failure the connection is closed.
    """

    def progress(self, text: str, steady: str) -> bytes:
        """Return what it waits for now; see `Progress.show`."""

    def refused(self, refusal: Refusal) -> bytes:
        """Return that its wait ended without GPUs."""

    def failed(self, error: CanhazgpuError) -> bytes:
        """Return that an error ended its wait. It is called in a child, too."""

    def granted(self, config: Config, grant: Grant) -> bytes:
        """Return that it has its GPUs. It is called in a child, which may read files.

        Raises `CanhazgpuError` where it cannot use them: they are released then.
        """


OpenAnswers = Callable[[WaitingRequest], WaiterAnswers]
