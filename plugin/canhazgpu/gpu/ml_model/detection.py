"""Detect the model that a process runs, by its command line and those of its parents; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from canhazgpu.gpu.ml_model.command_line import (
    Option,
    first_positional,
    key_value_settings,
    nested_command_lines,
    option_values,
    program_name,
)
from canhazgpu.gpu.ml_model.name_parser import parse_model_name

MODEL_WIDTH = 16
"""Columns of the table's MODEL."""

MODEL_SERVERS = (
    ("vllm", "serve"),
    ("vllm.entrypoints.cli.main", "serve"),
    ("text-generation-server", "serve"),
    ("trtllm-serve", "serve"),
    ("trtllm-serve",),
    ("lmdeploy", "serve", "api_server"),
    ("lmdeploy", "serve", "gradio"),
    ("lmdeploy", "chat"),
    ("aphrodite", "run"),
    ("aphrodite", "serve"),
    ("mlc_llm", "serve"),
    ("mlc_llm", "chat"),
    ("litgpt", "serve"),
    ("litgpt", "chat"),
    ("litgpt", "generate"),
    ("litgpt", "finetune"),
    ("litgpt", "finetune_lora"),
    ("litgpt", "finetune_full"),
)
"""Programs, with their subcommand, whose first argument is the model."""

MODEL_OPTIONS = (
    "pretrained-model-name-or-path",
    "model-name-or-path",
    "hf-repo",
    "hf",
    "model-id",
    "model-path",
    "model",
    "hf-model",
    "model-tag",
    "model-name",
    "model-dir",
    "base-model",
    "base-model-name-or-path",
    "base-model-id",
    "pretrained-model",
    "pretrained-model-path",
    "pretrained",
    "repo-id",
    "checkpoint-dir",
    "checkpoint-path",
    "ckpt-dir",
    "ckpt-path",
    "ckpt",
    "model-url",
    "served-model-name",
)
"""Options whose value is the model, the most specific first."""

MODEL_SETTINGS = frozenset(
    {"model-name-or-path", "pretrained-model-name-or-path", "model-id", "base-model"}
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

_LLAMA_CPP = re.compile(r"llama-[a-z0-9-]+|llamafile|whisper-(?:cli|server)|koboldcpp")
_WHISPER = frozenset({"whisper", "whisper-ctranslate2", "faster-whisper"})
_WHISPER_SIZE = re.compile(r"(?:tiny|base|small|medium|large|turbo)(?:[.-][a-z0-9-]{1,12})?")
_WEIGHT_FILE = re.compile(r".*\.(?:gguf|ggml|llamafile)", re.IGNORECASE)
_LM_EVAL_MODEL = re.compile(r"(?:^|,)(?:pretrained|model|model_name)=([^,]*)")

_PACKAGING = re.compile(
    r"(?:[-._](?:hf|gguf|ggml|gptq|awq|exl2|mlc|mlx|onnx|bnb|int[48]|fp(?:4|8|16|32)|bf16|f16|f32"
    r"|nvfp4|mxfp4|dynamic|quantized|[2-8]bit|w\d+a\d+|(?:ud-)?i?q\d(?:_[a-z0-9]+)*|q\df16_\d))+$"
)


def detect_model(command_lines_up: Sequence[Sequence[str]]) -> str | None:
    """Return the model that a process's command line names, else its nearest parent's.

    The first command line is the process's own, each next one is that of the parent. Workers
    replace theirs by a title (``VLLM::Worker_TP0``), and the parent's names the model.
    """
    for arguments in command_lines_up:
        if _is_session(arguments):
            return None
        if found := _model_in(tuple(arguments)):
            return found
    return None


def short_model_name(name: str, width: int = MODEL_WIDTH) -> str:
    """Return a model's name as a table shows it: ``llama-2-7b-chat``.

    It is in lower case, without the organisation and without suffixes of format and quantisation
    (-hf, -GGUF, -AWQ). A name that is still wider than `width` is cut with ``...``.
    """
    plain = name.rpartition("/")[2].partition(":")[0].lower()
    short = _PACKAGING.sub("", plain) or plain
    return short if len(short) <= width else short[: max(width - 3, 0)] + "..."[:width]


def _is_session(arguments: Sequence[str]) -> bool:
    # A title is one argument, as "sshd: ann@pts/0"; a script is the argument after its interpreter.
    firsts = (re.split(r"[:\s]", argument)[0] for argument in arguments[:2])
    return any(SESSION_PROGRAMS.fullmatch(first.rpartition("/")[2].lstrip("-")) for first in firsts)


@lru_cache(maxsize=256)  # processes of one tree have the same parents
def _model_in(arguments: tuple[str, ...]) -> str | None:
    for command in nested_command_lines(arguments):
        for value in _candidates(command):
            if found := parse_model_name(value):
                return found
    return None


def _candidates(command: Sequence[str]) -> Iterator[str]:
    """Yield the values that may name the model, the most specific first."""
    programs = [program_name(argument) for argument in command]
    served = _served_model(command, programs)
    if served is not None:
        yield served
    given = list(option_values(command))
    yield from _lm_eval_models(given)
    if _WHISPER & set(programs[:3]):
        yield from (f"whisper-{one.value}" for one in given if _is_whisper_size(one))
    runs_llama_cpp = any(map(_LLAMA_CPP.fullmatch, programs))
    for one in given:
        # Python's -m is a module.
        if one.name == "m" and (runs_llama_cpp or _WEIGHT_FILE.fullmatch(one.value)):
            yield one.value
    for name in MODEL_OPTIONS:
        yield from (one.value for one in reversed(given) if one.name == name)
    yield from (one.value for one in key_value_settings(command) if one.name in MODEL_SETTINGS)


def _served_model(command: Sequence[str], programs: Sequence[str]) -> str | None:
    for words in MODEL_SERVERS:
        for position, program in enumerate(programs):
            after = position + len(words)
            if program == words[0] and tuple(command[position + 1 : after]) == words[1:]:
                return first_positional(command[after:])
    return None


def _lm_eval_models(given: Sequence[Option]) -> Iterator[str]:
    """Yield the models in lm_eval's --model_args pretrained=…,dtype=…."""
    for one in given:
        if one.name == "model-args" and (match := _LM_EVAL_MODEL.search(one.value)):
            yield match[1]


def _is_whisper_size(option: Option) -> bool:
    return option.name == "model" and _WHISPER_SIZE.fullmatch(option.value) is not None
