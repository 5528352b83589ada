from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from demo_cluster import DemoClusterError, Layout


def test_a_place_that_other_users_cannot_enter_is_refused(directory: Path) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(DemoClusterError, match="ordinary users cannot enter"):
        Layout(closed / "cluster").create()


def test_a_socket_path_that_is_too_long_is_refused(directory: Path) -> None:
    with pytest.raises(DemoClusterError, match="too long for a socket"):
        Layout(directory / ("x" * 100)).create()


def test_creating_again_forgets_the_state_but_keeps_the_homes(directory: Path) -> None:
    layout = Layout(directory)
    layout.create()
    (layout.state / "old").touch()
    (layout.root / "home" / "kept").touch()

    layout.create()

    assert not (layout.state / "old").exists()
    assert (layout.root / "home" / "kept").exists()
    shutil.rmtree(layout.root)
