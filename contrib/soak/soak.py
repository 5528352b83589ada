#!/usr/bin/python3
"""Load a private Slurm with jobs, people and faults, and judge it by what the tasks recorded.

A Slurm of two nodes with 8 simulated GPUs each, an agent on each node and a Redis run on this host.
Four users start jobs, runs and reservations, a fifth uses GPUs without asking, and faults come at
random moments. README.md beside this file says what is tried, and what is not.

It needs root, Slurm, munge and redis-server. Everything lies in one directory below /tmp, and is
ended and removed at the end, on Ctrl-C too.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
for beside in (".", "../demo-cluster", "../fake-nvml", "../demo"):
    sys.path.insert(0, str(HERE / beside))
sys.dont_write_bytecode = True

from canhazgpu_soak.cluster import STORES, SoakCluster  # noqa: E402 - where it lies is known only now
from canhazgpu_soak.faults.plan import WEIGHTS  # noqa: E402
from canhazgpu_soak.load.rogues import MEAN_PAUSE_S  # noqa: E402
from canhazgpu_soak.report import VIOLATIONS, table  # noqa: E402
from canhazgpu_soak.session import Session  # noqa: E402
from demo_cluster import DemoClusterError, missing_requirements  # noqa: E402

EXAMPLES = """\
examples:
  soak.py build/venv                             20 minutes, with a seed of its own
  soak.py build/venv --minutes 5 --seed 4711     the faults and the load of that seed
  soak.py build/venv --minutes 2 --keep-logs d   copy all logs and records to ./d

exit status:
  0    all promises were kept
  1    some were not; the table names each violation
  2    an option is wrong, or something that it needs is missing
  3    the soak itself failed
  130  interrupted
"""
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HOGS_PER_CORE = 20
PROGRAMS = ("redis-server", "redis-cli", "cc", "unshare", "mount")
OWN_MOUNTS = "SOAK_HAS_ITS_OWN_MOUNTS"


def main() -> int:
    options = parse_arguments()
    missing = [*missing_requirements(), *(one for one in PROGRAMS if not shutil.which(one))]
    if missing:
        print(f"the soak needs {', '.join(missing)}", file=sys.stderr)
        return 2
    enter_own_mounts()
    os.umask(0o022)  # ordinary users have to read what is installed
    for number in ENDING_SIGNALS:
        signal.signal(number, interrupt)
    cluster = SoakCluster(
        options.venv.absolute(),
        options.store,
        options.weaken,
        has_hooks=not options.empty_hooks,
        driver=options.driver,
    )
    try:
        return soak(cluster, options)
    except KeyboardInterrupt:
        print("\ninterrupted; everything is removed again", file=sys.stderr)
        return 130
    except (DemoClusterError, OSError, RuntimeError) as exc:
        print(f"\nthe soak itself failed: {exc}", file=sys.stderr)
        return 3
    finally:
        # Once begun, it is finished: a second Ctrl-C would leave things behind.
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        cluster.close()


def soak(cluster: SoakCluster, options: argparse.Namespace) -> int:
    print(f"seed {options.seed}; everything is in {cluster.root}", flush=True)
    hogs = round(options.hogs_per_core * (os.cpu_count() or 1))
    length_s = options.minutes * 60
    session = Session(
        cluster,
        options.seed,
        length_s,
        hogs,
        only=options.only,
        starved=options.starved,
        rogue_pause_s=options.rogue_every,
    )
    try:
        cluster.boot()
        outcome = session.run(options.until_found)
    finally:
        if options.keep_logs is not None:
            session.keep(options.keep_logs)
    print(table(outcome))
    return 0 if outcome.holds else 1


def enter_own_mounts() -> None:
    """Begin again in a mount namespace of its own: what is mounted ends with it, come what may."""
    if OWN_MOUNTS not in os.environ:
        words = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvpe("unshare", words, {**os.environ, OWN_MOUNTS: "1"})  # noqa: S606, S607 - by PATH


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """End everything, once: a second signal would leave things behind."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("venv", type=Path, help="has canhazgpu installed")
    parser.add_argument("--minutes", type=float, default=20, help="of load and faults")
    parser.add_argument(
        "--seed", default=secrets.token_hex(4), help="decides what comes when (default: a new one)"
    )
    parser.add_argument(
        "--hogs-per-core", type=float, default=HOGS_PER_CORE, help="of the fault that takes the CPU"
    )
    parser.add_argument("--store", choices=sorted(STORES), default="single", help="(%(default)s)")
    parser.add_argument("--starved", action="store_true", help="take the CPU for half of the time")
    parser.add_argument(
        "--weaken", default="strong", help="what noting_agent.py takes out, to see that it is found"
    )
    parser.add_argument(
        "--empty-hooks", action="store_true", help="the same jobs and faults without canhazgpu"
    )
    parser.add_argument(
        "--rogue-every", type=float, default=MEAN_PAUSE_S, help="seconds, on average (%(default)g)"
    )
    parser.add_argument(
        "--until-found", choices=VIOLATIONS, help="end as soon as one of this kind is found"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=WEIGHTS,
        metavar="KIND",
        help=f"this kind of faults; may be repeated. All of them: {', '.join(WEIGHTS)}",
    )
    parser.add_argument("--keep-logs", type=Path, help="a directory for all logs and records")
    parser.add_argument("--driver", type=Path, help="where the simulated driver is, compiled")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
