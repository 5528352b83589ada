"""Everything this package raises on its own account."""

from __future__ import annotations


class DemoClusterError(Exception):
    """Something about a private cluster went wrong; the message says what, with log tails."""


class StartError(DemoClusterError):
    """The cluster did not come up; what had started was stopped again."""


class WaitTimeout(DemoClusterError):
    """A state was not reached in time."""


class CommandFailed(DemoClusterError):
    """A client command ended with a non-zero status."""
