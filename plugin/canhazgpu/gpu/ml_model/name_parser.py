"""Parse the name of a model from a value of a command line: id, path, file or URL; pure.

Command lines are hostile input. The result matches the grammar of model ids and does not look like
a secret.
"""

from __future__ import annotations

import re

from canhazgpu.gpu.secret_detection import has_random_parts, looks_secret

MAX_MODEL_NAME = 511
"""Characters of the longest name that is accepted."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}"
"""One part of an id, or a file: Linux allows names of 255 bytes."""
_TAG = (
    r"(?:latest|\d+(?:\.\d+)?[bm][A-Za-z0-9._-]{0,24}"
    r"|(?:UD-)?(?:I?Q\d|TQ\d|B?F16|F32|MXFP4)[A-Z0-9_]{0,8})"
)
"""A size or a quantisation and nothing else, so that ``user:password`` does not match."""
_ID = re.compile(rf"(?:{_NAME}/)?{_NAME}(?::{_TAG})?", re.IGNORECASE | re.ASCII)
_HUB = re.compile(
    r"(?:hf://|(?:https?://(?:www\.)?)?(?:huggingface\.co|hf\.co)/)"
    rf"({_NAME}/{_NAME}(?::{_TAG})?)(?:/(?:tree|blob|resolve)/[^?@#%]*|/)?",
    re.IGNORECASE | re.ASCII,
)
_REMOTE = re.compile(r"(?:s3|gs|gcs|hdfs|oss|az|file)://([^?@#%]+)", re.IGNORECASE)
_CACHED = re.compile(rf"models--({_NAME})", re.ASCII)
_BLOB = re.compile(r"sha256[-:]")

_WEIGHTS = re.compile(
    r"\.(?:gguf|ggml|safetensors|bin|pth?|ckpt|onnx|engine|plan|nemo|h5|keras|tflite|llamafile)$",
    re.IGNORECASE,
)
_NO_WEIGHTS = re.compile(
    r"\.(?:ya?ml|json[l5]?|toml|txt|py|sh|cfg|conf|ini|log|csv|tar|t?gz|zip|sif|so|ipynb|md|db)$",
    re.IGNORECASE,
)
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_CHECKPOINT = re.compile(
    r"""(?: (?:checkpoint|epoch|step|iter|global_step|ckpt)[-_=]?\d* | final | best | last | latest
      | merged | hf | snapshots? | snapshot | [0-9a-f]{32,} | v?\d+
      | (?:diffusion_)?pytorch_model | adapter_model | model | consolidated(?:\.\d+)? )""",
    re.VERBOSE | re.IGNORECASE,
)
"""Names of files and folders that say nothing of the model; the folder above has its name."""
_FOLDER = re.compile(
    r"models?|checkpoints?|ckpts?|weights|outputs?|out|runs?|results?|logs?|pretrained|experiments?"
    r"|exp|saved(?:_models)?|data|hub|main|workspace|tmp",
    re.IGNORECASE,
)
"""Folders that hold models; no organisation has such a name."""
_NOT_A_NAME = re.compile(
    r"hf(?:-causal|-auto|-multimodal)?|(?:vllm|sglang|openai)(?:-vlm)?|auto|default|custom|none|null"
    r"|local(?:-chat)?(?:-completions)?|true|false|base|small|large",
    re.IGNORECASE,
)
"""Values of --model that say how the model runs, not which model it is."""
_NAMELESS = (_CHECKPOINT, _FOLDER, _NOT_A_NAME)


def parse_model_name(value: str) -> str | None:
    """Return the model that a value names, ``meta-llama/Llama-2-7b-chat-hf``, or None.

    For a path in the Hugging Face cache it is the id. For any other path it is the last part that
    is a name; a file of weights gives its stem.
    """
    found = _name_in_value(value)
    if found is None or len(found) > MAX_MODEL_NAME:
        return None
    if looks_secret(found) or "+" in value or has_random_parts(value):
        return None
    if ".." in found or any(pattern.fullmatch(found) for pattern in _NAMELESS):
        return None
    return found if _ID.fullmatch(found) and re.search(r"[A-Za-z]", found) else None


def _name_in_value(value: str) -> str | None:
    if hub := _HUB.fullmatch(value):
        return hub[1]
    if remote := _REMOTE.fullmatch(value):
        return _name_in_path(f"/{remote[1]}")
    if "://" in value or len(value) > 4096:
        return None
    return _name_in_path(value) if _is_path(value) else value


def _is_path(value: str) -> bool:
    if value.startswith(("/", ".", "~")) or value.count("/") > 1 or _CACHED.match(value):
        return True
    if _WEIGHTS.search(value) or _NO_WEIGHTS.search(value):
        return True
    first, slash, rest = value.partition("/")
    return slash == "/" and (not rest or _FOLDER.fullmatch(first) is not None)


def _name_in_path(path: str) -> str | None:
    parts = [part for part in path.split("/") if part not in ("", ".", "..", "~")]
    for part in parts:
        if _BLOB.match(part):
            return None
        if cached := _CACHED.fullmatch(part):
            return cached[1].replace("--", "/", 1)
    if not parts or _NO_WEIGHTS.search(parts[-1]):
        return None
    name = _SHARD.sub("", _WEIGHTS.sub("", parts.pop()))
    if not _CHECKPOINT.fullmatch(name):
        return name
    while parts and _CHECKPOINT.fullmatch(parts[-1]):
        parts.pop()
    # A folder this near to the root is a home directory or a volume.
    return parts[-1] if len(parts) > 2 else None
