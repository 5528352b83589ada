"""A private Slurm of a site that has hook scripts of its own, for canhazgpu to come to."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clusters.gpu_cluster import GpuCluster, run_without_importing
from polling import poll_until


class SiteCluster(GpuCluster):
    """`GpuCluster` without canhazgpu's hooks, but with a site's: `site` says how they are named.

    ``patterns``: ``prolog.d/*`` and ``epilog.d/*``; ``scripts``: one file each. The site's prolog
    and epilog write into `log`; its task prolog exports SITE, SAW and a CUDA_VISIBLE_DEVICES of its
    own, prints a line without an end, and fails for a task with SITE_FAILS.
    """

    site = "patterns"

    @property
    def slurm_dir(self) -> Path:
        return self.root / "etc" / "slurm"

    @property
    def log(self) -> Path:
        return self.root / "site.log"

    def _install_hooks(self) -> dict[str, str]:
        self.log.touch()
        for key in ("prolog", "epilog"):
            path = self.slurm_dir / f"{key}.d" / "10-site.sh"
            _script(path, f'echo "{key} $SLURM_JOB_ID" >>{self.log}')
        _script(
            self.slurm_dir / "site_task_prolog.sh",
            'echo "export SITE=yes"\n'
            'echo "export SAW=$CUDA_VISIBLE_DEVICES"\n'
            '[ -z "$SITE_FAILS" ] || exit 3\n'
            'printf "export CUDA_VISIBLE_DEVICES=site"',
        )
        if self.site == "scripts":
            named = {
                key: self.slurm_dir / f"{key}.d" / "10-site.sh" for key in ("prolog", "epilog")
            }
        else:
            named = {key: self.slurm_dir / f"{key}.d" / "*" for key in ("prolog", "epilog")}
        hooks = {key: str(path) for key, path in named.items()}
        return {**hooks, "task_prolog": str(self.slurm_dir / "site_task_prolog.sh")}

    def hooks(
        self, *arguments: str, check: bool = True, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the commands of `canhazgpu hooks` as root on n1."""
        return subprocess.run(
            [
                *(self.venv / "bin/canhazgpu", "--config", self.config_file, "hooks"),
                *(arguments[0], "--slurm-dir", self.slurm_dir, *arguments[1:]),
            ],
            env={**self._environ(), **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=check,
        )

    def check(self) -> subprocess.CompletedProcess[str]:
        """Run `hooks check` as `hooks` does, but for its imports."""
        arguments = ["--config", str(self.config_file), "hooks", "check", "--json"]
        arguments += ["--slurm-dir", str(self.slurm_dir)]
        return run_without_importing(self.venv, arguments, self._environ())

    def _environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "SLURM_CONF": str(self.slurm.layout.slurm_conf),
            "SLURMD_NODENAME": "n1",
        }

    def problems(self, **environ: str) -> dict[str, dict[str, Any]]:
        """Return what `hooks check` finds wrong, by id."""
        done = self.hooks("check", "--json", check=False, **environ) if environ else self.check()
        shown = json.loads(done.stdout)
        return {one["id"]: one for one in shown["findings"] if one["severity"] != "ok"}

    def change_conf(self, lines: Iterable[tuple[str, str | None]]) -> None:
        """Set these keys of slurm.conf, None taking a line out, and have the daemons read it."""
        self.edit_conf(lines)
        self.slurm.reconfigure()
        want = dict(lines).get("TaskProlog", "")
        poll_until(lambda: (want or "") in self.slurm.run(["scontrol", "show", "config"]).stdout)

    def edit_conf(self, lines: Iterable[tuple[str, str | None]]) -> None:
        """Set these keys of slurm.conf without telling anybody."""
        conf = self.slurm.layout.slurm_conf
        text = conf.read_text()
        for key, value in lines:
            text = re.sub(rf"(?m)^{key}=.*\n", "", text)
            text += f"{key}={value}\n" if value is not None else ""
        conf.write_text(text)

    def job(self, script: str, user: str, *arguments: str) -> list[str]:
        """Run a batch job with one GPU to its end, and return what it printed."""
        job = self.slurm.submit(script, "--gres=gpu:1", *arguments, user=user)
        self.slurm.wait_job(job)
        self.slurm.wait_nodes_idle()
        return self.slurm.output(job, user=user).splitlines()

    def tree(self) -> dict[str, tuple[int, str]]:
        """Return every file of Slurm's directory with its mode and text."""
        return {
            str(path.relative_to(self.slurm_dir)): (
                stat.S_IMODE(path.stat().st_mode),
                path.read_text() if path.is_file() else "",
            )
            for path in self.slurm_dir.rglob("*")
        }


class ScriptsCluster(SiteCluster):
    """The same with one script for each hook."""

    site = "scripts"


def _script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
