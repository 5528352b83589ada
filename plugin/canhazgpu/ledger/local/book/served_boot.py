"""The mark of the boot in which a node's book was last in use: outside of `node.state_dir`.

A book that is missing in a boot that has its mark was lost: who holds the node's GPUs is not known
then. Without the mark nobody was granted anything in this boot.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from canhazgpu.node.identity import state_dir
from canhazgpu.node.state_files import read_if_trusted, write_durably

if TYPE_CHECKING:
    from canhazgpu.config.schema import NodeConfig

MAX_NAME_BYTES = 200


class ServedBoot:
    """The mark for one directory of records; everybody may read it, and only root write it."""

    def __init__(self, marker_dir: Path, state_dir: Path, boot_id: str | None) -> None:
        """Take this boot's id; where it is not known, there is no mark."""
        self.path = marker_dir / _file_name(state_dir)
        self._boot_id = boot_id
        self._is_noted = False

    @property
    def kept_path(self) -> Path:
        """The file beside it with what outlasts a reboot; no directory has a mark of this name."""
        return self.path.with_name(f"{self.path.name}%kept")

    def is_noted(self) -> bool:
        """Return whether this boot has its mark; a file that cannot be read is none."""
        if not self._is_noted and self._boot_id is not None:
            with suppress(OSError):
                self._is_noted = read_if_trusted(self.path) == self._boot_id.encode()
        return self._is_noted

    def note(self) -> None:
        """Mark this boot, where it is not yet; `hooks check` tells where that is not possible."""
        if self._boot_id is None or self.is_noted():
            return
        with suppress(OSError):
            write_durably(self.path, self._boot_id.encode(), 0o644)
            self._is_noted = True


def served_boot(node: NodeConfig, name: str, boot_id: str | None) -> ServedBoot:
    """Return the mark of the node with this name."""
    return ServedBoot(Path(node.marker_dir), state_dir(node, name), boot_id)


def _file_name(state_dir: Path) -> str:
    """Return a name that no other directory has, or almost none where the path is very long."""
    text = os.fsencode(state_dir).replace(b"%", b"%25").replace(b"/", b"%2F")
    return os.fsdecode(text[-MAX_NAME_BYTES:])
