"""The entry point of the installed program.

It asks the node's agent first, which has everything imported. Where there is none, it goes on in
its own process, and keeps modules in PYTHONPATH from replacing ours: a user sets that for the
programs that `canhazgpu run` starts, and a ``redis.py`` or ``queue.py`` there would be imported by
canhazgpu. So this module imports only what Python itself has loaded.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; if PYTHONPATH is set, in an interpreter that ignores it."""
    if os.environ.get("PYTHONPATH") and not sys.flags.isolated and sys.executable:
        os.execv(sys.executable, [sys.executable, "-I", "-m", "canhazgpu.cli.entry", *sys.argv[1:]])  # noqa: S606
    if sys.argv[1:] == ["--version"] and sys.stdout is not None:
        from canhazgpu.cli.version import VERSION  # noqa: PLC0415 - as below

        print(f"canhazgpu {VERSION}")
        return
    from canhazgpu.agent.command_client.main import ask_agent_first  # noqa: PLC0415 - as below

    ask_agent_first(sys.argv[1:])
    from canhazgpu.cli.main import main as run  # noqa: PLC0415 - not with the user's path

    run()


if __name__ == "__main__":
    main()
