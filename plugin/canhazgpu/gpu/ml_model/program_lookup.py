"""Which program of the table a command line runs."""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.gpu.ml_model.model_program import ModelProgram
from canhazgpu.gpu.ml_model.program_table import PROGRAMS


def program_of(programs: Sequence[str]) -> tuple[ModelProgram, int] | None:
    """Return the program that a command line runs, and where its arguments begin; None for none.

    `programs` are the arguments as names of programs. The first program counts, and of its entries
    the one with most subcommands.
    """
    for position, program in enumerate(programs):
        for words, entry in _ENTRIES.get(program, ()):
            if tuple(programs[position : position + len(words)]) == words:
                return entry, position + len(words)
    return None


def _entries_by_program() -> dict[str, list[tuple[tuple[str, ...], ModelProgram]]]:
    found: dict[str, list[tuple[tuple[str, ...], ModelProgram]]] = {}
    for entry in PROGRAMS:
        for words in entry.commands:
            found.setdefault(words[0], []).append((words, entry))
    for entries in found.values():
        entries.sort(key=lambda one: -len(one[0]))
    return found


_ENTRIES = _entries_by_program()
