"""The installed program's first step: modules of the user's own must not take the place of ours.

``PYTHONPATH`` is for the user's programs, which `canhazgpu run` starts with it: a ``redis.py`` or
``queue.py`` there would be imported here. Imports nothing but what Python itself has loaded.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line, in an interpreter that ignores Python's variables where any is set."""
    if os.environ.get("PYTHONPATH") and not sys.flags.isolated and sys.executable:
        os.execv(sys.executable, [sys.executable, "-I", "-m", "canhazgpu.cli.main", *sys.argv[1:]])  # noqa: S606
    if sys.argv[1:] == ["--version"] and sys.stdout is not None:
        from canhazgpu.cli.version import VERSION  # noqa: PLC0415 - as below

        print(f"canhazgpu {VERSION}")
        return
    from canhazgpu.cli.main import main as run  # noqa: PLC0415 - only with a path of our own

    run()
