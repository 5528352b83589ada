"""Detect the model that a process runs, by its command line and those of its parents; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from canhazgpu.gpu.ml_model.command_line import (
    key_value_settings,
    list_option_values,
    nested_command_lines,
    option_values,
    positionals,
    program_name,
)
from canhazgpu.gpu.ml_model.model_arguments import models_in_arguments
from canhazgpu.gpu.ml_model.model_program import ModelProgram
from canhazgpu.gpu.ml_model.name_parser import parse_model_name
from canhazgpu.gpu.ml_model.program_lookup import program_of
from canhazgpu.gpu.ml_model.program_table import MODEL_OPTIONS, MODEL_SETTINGS
from canhazgpu.gpu.ml_model.remote_services import (
    CLOUD_TAG,
    LM_EVAL_CLIENTS,
    is_client,
    is_service_model,
)

SESSION_PROGRAMS = re.compile(
    r"""tmux | screen | dtach | abduco | zellij | mosh-server | sshd(?:-session)? | login | systemd
      | init | crond? | atd | dockerd | containerd(?:-shim.*)? | slurmd | slurmstepd
      | jupyterhub | jupyter-(?:lab|notebook) | code(?:-server)? | ssh
      | claude | codex | aider | gemini | opencode | goose | llm""",
    re.VERBOSE | re.IGNORECASE,
)
"""Programs whose command line says nothing of their children; the search ends at them.

Among them are coding assistants: the model of their --model is not on this node's GPUs.
"""

_WHISPER_PROGRAMS = frozenset({"whisper", "whisper-ctranslate2", "faster-whisper"})
_WHISPER_SIZE = re.compile(r"(?:tiny|base|small|medium|large|turbo)(?:[.-][a-z0-9-]{1,12})?")
_WEIGHT_FILE = re.compile(r".*\.(?:gguf|ggml|llamafile)", re.IGNORECASE)
_PROGRAM_WITH_WEIGHTS = re.compile(r".*\.llamafile(?:\.exe)?", re.IGNORECASE)


def detect_model(command_lines_up: Sequence[Sequence[str]]) -> str | None:
    """Return the model that a process's command line names, else its nearest parent's.

    The first command line is the process's own, each next one is that of the parent. Workers
    replace theirs by a title (``VLLM::Worker_TP0``), and the parent's names the model.
    """
    for arguments in command_lines_up:
        if _is_session(tuple(arguments)):
            return None
        if found := _model_in(tuple(arguments)):
            return found
    return None


@lru_cache(maxsize=256)  # as below
def _is_session(arguments: tuple[str, ...]) -> bool:
    # A title is one argument, as "sshd: ann@pts/0"; a script is the argument after its interpreter.
    firsts = (re.split(r"[:\s]", argument)[0] for argument in arguments[:2])
    return any(SESSION_PROGRAMS.fullmatch(first.rpartition("/")[2].lstrip("-")) for first in firsts)


@lru_cache(maxsize=256)  # processes of one tree have the same parents
def _model_in(arguments: tuple[str, ...]) -> str | None:
    for command in nested_command_lines(arguments):
        programs = [program_name(argument) for argument in command]
        known = program_of(programs)
        if _is_client(command, programs, known):
            continue
        for value in _candidates(command, programs, known):
            if CLOUD_TAG.fullmatch(value) or (known is None and is_service_model(value)):
                continue
            if found := parse_model_name(value):
                return found
    return None


KnownProgram = tuple[ModelProgram, int] | None
"""The program that a command line runs, and where its arguments begin."""


def _is_client(command: Sequence[str], programs: Sequence[str], known: KnownProgram) -> bool:
    """Tell whether the command talks to a service that runs the model elsewhere."""
    if known is None:
        return is_client(programs, option_values(command))
    program, begin = known
    if not program.model_arguments:
        return False
    arguments = command[begin:]
    backends = (one.value for one in option_values(arguments) if one.name in ("model", "m"))
    return any(LM_EVAL_CLIENTS.fullmatch(backend) for backend in backends) or any(
        "base_url" in one.value
        for one in list_option_values(arguments)
        if one.name in program.model_arguments
    )


def _candidates(
    command: Sequence[str], programs: Sequence[str], known: KnownProgram
) -> Iterator[str]:
    """Yield the values that may name the model, the most specific first."""
    if known is not None:
        yield from _candidates_of(known[0], command[known[1] :])
    given = list(option_values(command))
    yield from _models_in_model_args(command, ("model-args",))
    if _WHISPER_PROGRAMS & set(programs[:3]):
        yield from (
            f"whisper-{one.value}"
            for one in given
            if one.name == "model" and _WHISPER_SIZE.fullmatch(one.value)
        )
    # Python's -m is a module.
    yield from (one.value for one in given if one.name == "m" and _WEIGHT_FILE.fullmatch(one.value))
    for name in MODEL_OPTIONS:
        yield from (one.value for one in reversed(given) if one.name == name)
    yield from _setting_values(command, MODEL_SETTINGS)
    yield from (one for one in command[:3] if _PROGRAM_WITH_WEIGHTS.fullmatch(one))


def _candidates_of(program: ModelProgram, arguments: Sequence[str]) -> Iterator[str]:
    """Yield the values that the program's documentation says name the model."""
    given = list(option_values(arguments))
    for name in program.options:
        yield from (one.value for one in reversed(given) if one.name == name)
    found = list(positionals(arguments, program.option_types))
    if "" in program.model_arguments:
        yield from (name for one in found for name in models_in_arguments(one))
    elif program.model_position is not None:
        yield from found[program.model_position :][:1]
    yield from _models_in_model_args(arguments, program.model_arguments)
    yield from _setting_values(arguments, program.settings)


def _models_in_model_args(arguments: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    for one in list_option_values(arguments):
        if one.name in names:
            yield from models_in_arguments(one.value)


def _setting_values(arguments: Sequence[str], keys: Sequence[str]) -> Iterator[str]:
    """Yield the values of ``key=VALUE`` arguments whose key is, or ends in, one of the keys."""
    given = list(key_value_settings(arguments))
    for key in keys:
        yield from (one.value for one in given if f".{one.name}".endswith(f".{key}"))
