#!/usr/bin/python3
"""Show canhazgpu at work: a private Slurm of two nodes with four simulated GPUs each.

    demo.py run [--keep]     show it, checking every step; `make demo` and `make demo KEEP=1`
    demo.py run --picture docs/page.png   the same, and the picture in README anew (Chromium)
    demo.py stop DIRECTORY   end and remove what `--keep` left running

Needs root. Everything lies in one directory, and nothing of it is left behind.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
for beside in ("demo-cluster", "fake-nvml"):
    sys.path.insert(0, str(HERE.parent / beside))
sys.dont_write_bytecode = True

from canhazgpu_demo.console import DemoFailed, heading, indented, say  # noqa: E402
from canhazgpu_demo.environment import DemoEnvironment  # noqa: E402
from canhazgpu_demo.paths import DemoPaths  # noqa: E402
from canhazgpu_demo.scenario import Scenario  # noqa: E402
from demo_cluster import DemoClusterError, missing_requirements  # noqa: E402

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130


def main() -> int:
    options = parse_arguments()
    missing = missing_requirements()
    if missing:
        print(f"the demonstration needs {', '.join(missing)}", file=sys.stderr)
        return 1
    os.umask(0o022)  # ordinary users have to read what is installed
    for number in ENDING_SIGNALS:
        signal.signal(number, interrupt)
    try:
        return (
            stop(options.directory)
            if options.action == "stop"
            else run(keep=options.keep, picture=options.picture)
        )
    except KeyboardInterrupt:
        print("\ninterrupted; everything is removed again", file=sys.stderr)
        return INTERRUPTED
    except (DemoFailed, DemoClusterError) as exc:
        print(f"\nFAILED: {exc}", file=sys.stderr)
        return 1


def run(*, keep: bool, picture: Path | None) -> int:
    world = DemoEnvironment()
    kept = False
    try:
        heading("0. A cluster of its own")
        world.install_and_boot()
        Scenario(world, picture).run()
        if keep:
            say(usage_text(world, world.start_page()))
            kept = True
    except DemoClusterError:
        raise
    except DemoFailed:
        print(indented(world.slurm.diagnosis()), file=sys.stderr)
        raise
    finally:
        if not kept:
            close(world)
    if not kept:
        say("\nEverything shown was checked, and everything is removed again.")
    return 0


def stop(directory: Path) -> int:
    if not DemoPaths(directory).users.exists():
        raise DemoFailed(f"{directory} holds no demonstration")
    close(DemoEnvironment(directory.absolute()))
    say(f"{directory} is stopped and removed")
    return 0


def close(world: DemoEnvironment) -> None:
    # Once begun, it is finished: a second Ctrl-C would leave things behind.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    world.close()


def interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def usage_text(world: DemoEnvironment, page: str) -> str:
    people, places = world.users, world.paths
    return f"""
The cluster stays up. A shell as {people.alice} on n1, where canhazgpu, sbatch, squeue and
gpu-process are at hand:

    {places.shell} {people.alice} n1

The cluster in a browser (canhazgpu web):

    {page}

End it, and remove all that it made:

    {HERE / "demo.py"} stop {places.root}
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    run_parser = actions.add_parser("run", help="show canhazgpu at work")
    run_parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    run_parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="keep what the page shows on the way as a PNG"
    )
    stop_parser = actions.add_parser("stop", help="end what --keep left running")
    stop_parser.add_argument("directory", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
