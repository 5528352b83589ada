"""Start and stop the embedded store for a service manager.

``python -m canhazgpu.ledger.embedded.service start|stop DIRECTORY``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from canhazgpu.errors import CanhazgpuError, advice_for, error_text
from canhazgpu.ledger.embedded import server

START_WAIT_S = 30.0
"""How long another process may be starting or stopping the server."""
EXIT_USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """Return the exit status. One that runs is not started again, one that is gone not stopped."""
    if len(arguments) != 2 or arguments[0] not in ("start", "stop"):
        print("usage: start|stop DIRECTORY", file=sys.stderr)  # noqa: T201 - the service's log
        return EXIT_USAGE
    action, directory = arguments
    try:
        if action == "start":
            server.ensure_running(directory, write=True, wait_s=START_WAIT_S)
        else:
            server.stop(directory)
    except CanhazgpuError as exc:
        print(f"canhazgpu: {error_text(exc)}", file=sys.stderr)  # noqa: T201 - the same
        return advice_for(exc).exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
