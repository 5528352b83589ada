"""Does a command line belong to a client of a remote service; pure.

A client names the service's model, and that model is not on this node's GPUs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from canhazgpu.gpu.ml_model.command_line import Option

SERVICE_ONLY_MODELS = re.compile(
    r"""
      # https://platform.openai.com/docs/models
      (?:chat)?gpt-(?:3\.5|4|4\.\d|4o|4v|5|5\.\d|6)(?:[.-].*)?
    | gpt-(?:image|audio|realtime)(?:-.*)? | o[134](?:-.*)? | codex-mini-.* | computer-use-.*
    | text-(?:embedding-(?:3|ada|\d)|davinci|curie|babbage|ada|moderation).* | omni-moderation-.*
    | (?:davinci|babbage)-002 | dall-e-\d | tts-1(?:-.*)? | whisper-1 | sora-.*
      # https://docs.claude.com/en/docs/about-claude/models
    | claude(?:-(?:v?\d|instant|opus|sonnet|haiku).*)?
      # https://ai.google.dev/gemini-api/docs/models
    | gemini-.* | (?:chat|text|code)-bison.* | text-unicorn.* | imagen-.* | veo-\d.*
      # https://docs.x.ai/docs/models
    | grok-(?:beta|code|vision|[2-9]).*
      # https://docs.mistral.ai/getting-started/models, and aliases of several services
    | mistral-(?:tiny|small|medium|large|embed|saba|ocr)(?:-.*)? | .+-latest
      # https://docs.cohere.com/docs/models
    | command(?:-(?:light|nightly|r|r-plus|r7b|a)(?:-.*)?)?
    | (?:embed|rerank)-(?:english|multilingual|v\d).*
      # https://api-docs.deepseek.com, https://docs.perplexity.ai, https://docs.voyageai.com
    | deepseek-(?:chat|reasoner) | sonar(?:-.*)? | voyage-.*
      # https://help.aliyun.com/zh/model-studio/models, https://platform.moonshot.cn/docs
    | qwen\d?(?:\.\d)?-(?:vl-)?(?:max|plus|turbo|flash|long)(?:-.*)? | moonshot-v1-.*
    | kimi-(?:latest|thinking).*
    | glm-4-(?:plus|air|airx|flash|flashx|long).* | ernie-(?:bot|[34]\.).* | doubao-.*
      # https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html
    | (?:(?:us|eu|apac|global|jp)\.)?
      (?:anthropic|amazon|meta|cohere|ai21|mistral|deepseek|openai)\.[a-z].*
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Names, without an organisation, of models that are offered as a service only."""

SERVICES_WITH_OWN_MODELS = re.compile(
    r"(?:openai|anthropic|google|gemini|vertex_ai|xai|x-ai|mistral|cohere|deepseek|perplexity)/"
)
SERVICES = re.compile(
    r"""(?:azure(?:_ai)? | bedrock | sagemaker | vertex_ai | gemini | anthropic | openrouter | groq
      | together_ai | fireworks_ai | deepinfra | anyscale | replicate | perplexity | watsonx
      | databricks | cerebras | sambanova | nvidia_nim | cloudflare | hosted_vllm | ollama_chat
      | openai_like | litellm_proxy | github)/.*""",
    re.VERBOSE,
)
"""Names with a provider's prefix: https://docs.litellm.ai/docs/providers. No organisation of the
Hugging Face hub has one of these names in lower case, so they are compared as they are written."""

CLOUD_TAG = re.compile(r".*[:-]cloud")
"""A model that ollama runs in its cloud: https://docs.ollama.com/cloud."""

SERVICE_ADDRESS_OPTIONS = frozenset(
    {
        "base-url",
        "api-base",
        "api-base-url",
        "api-url",
        "openai-api-base",
        "openai-base-url",
        "azure-endpoint",
        "server-url",
        "inference-server-url",
    }
)
"""Options by which a client is told the address of the service."""

CLIENT_COMMANDS = (
    ("vllm", "chat"),  # https://docs.vllm.ai/en/latest/cli/
    ("vllm", "complete"),
    ("vllm", "bench", "serve"),
    ("benchmark_serving",),
    ("sglang.bench_serving",),  # https://docs.sglang.ai/developer_guide/bench_serving.html
    ("lmdeploy", "serve", "api_client"),
    ("lmdeploy", "serve", "proxy"),
    ("lighteval", "endpoint"),
    ("genai-perf",),  # https://docs.nvidia.com/deeplearning/triton-inference-server/
    ("aiperf",),
    ("guidellm",),  # https://github.com/vllm-project/guidellm
    ("litellm",),  # https://docs.litellm.ai
)
"""Programs, with their subcommands, that only talk to a server."""

LM_EVAL_CLIENTS = re.compile(
    r"""(?:local|openai|azure-openai)-(?:chat-)?completions | anthropic(?:-.*)? | litellm(?:-.*)?
      | textsynth | watsonx_llm | sglang-generate | gguf | ggml""",
    re.VERBOSE,
)
"""Values of lm_eval's --model that talk to a server.

Source: https://github.com/EleutherAI/lm-evaluation-harness#model-apis-and-inference-servers."""


def is_service_model(name: str) -> bool:
    """Tell whether a remote service alone offers a model of this name."""
    if SERVICES.fullmatch(name):
        return True
    plain = SERVICES_WITH_OWN_MODELS.sub("", name, count=1)
    return "/" not in plain and SERVICE_ONLY_MODELS.fullmatch(plain) is not None


def is_client(programs: Sequence[str], options: Iterable[Option]) -> bool:
    """Tell whether a command line talks to a service; `programs` are its words."""
    return any(option.name in SERVICE_ADDRESS_OPTIONS for option in options) or any(
        tuple(programs[position : position + len(words)]) == words
        for position, program in enumerate(programs)
        for words in _CLIENTS.get(program, ())
    )


def _clients_by_program() -> Mapping[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for words in CLIENT_COMMANDS:
        found.setdefault(words[0], []).append(words)
    return found


_CLIENTS = _clients_by_program()
