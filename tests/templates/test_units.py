"""systemd's own programs read the units and the entry of tmpfiles.d as they are meant."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from canhazgpu.templates.agent_units import UnitSettings, unit_texts

STRANGE = '100% %n%b it\'s $HOME \\ "x" é'


def written(directory: Path, settings: UnitSettings) -> list[Path]:
    paths = []
    for name, text in unit_texts(settings).items():
        paths.append(directory / Path(name).name)
        paths[-1].write_text(text, "utf-8")
    return paths


def python_at(directory: Path) -> str:
    """A link to this Python, as a virtual environment has one."""
    directory.mkdir(parents=True)
    (directory / "python").symlink_to(sys.executable)
    return str(directory / "python")


def verified(units: list[Path]) -> str:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "canhazgpu" in line]
    return "\n".join((*ours, "" if done.returncode == 0 else done.stderr))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
@pytest.mark.parametrize("name", ["plain", "50%n $HOME", STRANGE])
@pytest.mark.parametrize("node", [None, "gpu-1.x"])
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path, name: str, node: str | None) -> None:
    settings = UnitSettings(
        python_at(tmp_path / name / "bin"), "/run/x", node, f"/etc/{name}", f"/var/{name}"
    )
    units = [one for one in written(tmp_path, settings) if one.suffix == ".service"]

    assert len(units) == 2
    assert verified(units).strip() == ""


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
def test_the_verification_sees_a_path_that_is_not_escaped(tmp_path: Path) -> None:
    unit, _ = written(tmp_path, UnitSettings(python_at(tmp_path / "50%a b"), "/run/x"))
    unit.write_text(unit.read_text().replace("%%", "%"), "utf-8")

    assert verified([unit]).strip() != ""


@pytest.mark.skipif(not shutil.which("systemd-tmpfiles"), reason="systemd is not installed here")
@pytest.mark.skipif(os.geteuid() != 0, reason="the directory is made for root")
@pytest.mark.parametrize("name", ["plain", STRANGE])
def test_the_entry_makes_the_directory_of_the_records(tmp_path: Path, name: str) -> None:
    wanted = tmp_path / name
    *_, entry = written(tmp_path, UnitSettings("/usr/bin/python3", str(wanted)))
    record = wanted / "jobs" / "1.json"

    for _ in range(2):
        subprocess.run(["systemd-tmpfiles", "--create", str(entry)], check=True)
        record.parent.mkdir(exist_ok=True)
        record.touch()
    subprocess.run(["systemd-tmpfiles", "--clean", str(entry)], check=True)

    assert (wanted.stat().st_uid, stat.S_IMODE(wanted.stat().st_mode)) == (0, 0o755)
    assert record.exists()
