"""The programs that run models, and where their command lines name the model: a table; pure.

One entry is one program. Its source is the published documentation of the command line. Options
are in lower case, without leading dashes and with ``-`` for ``_``. Options like ``--enable-…`` and
``--no-…`` are switches by convention (`command_line.SWITCH_BY_CONVENTION`); entries name others.
"""

from __future__ import annotations

from canhazgpu.gpu.ml_model.model_program import ModelProgram, commands, option_types

_VLLM_TYPES = option_types(
    switches="""
    aggregate-engine-logging async-scheduling calculate-kv-scales cohere-is-reasoning-model
    cudagraph-metrics data-parallel-external-lb data-parallel-hybrid-lb
    data-parallel-multi-port-external-lb dcp-q-replicate dpe dph dpm engine-use-ray ep
    exclude-tools-when-tool-choice-none fail-on-environ-validation fully-sharded-loras grpc headless
    interleave-mm-strings jit-monitor-verbose kv-cache-metrics kv-sharing-fast-prefill
    language-model-only launch-kobold-api log-error-stack long-prefill-token-threshold-adaptive
    mm-device-do-normalize mm-encoder-only monokernel numa-bind ray-workers-use-nsight
    return-sampling-mask return-tokens-as-token-ids scheduler-reserve-full-isl
    sleep-mode-offload-cudagraph specialize-active-lora swa-bounded-replay tokens-only
    trust-request-chat-template trust-request-mm-kwargs worker-use-ray
    """,
    lists="""
    allowed-media-domains api-key cpu-offload-params cudagraph-capture-sizes ignore-patterns
    kv-cache-dtype-skip-layers logits-processors lora-modules lora-target-modules numa-bind-cpus
    numa-bind-nodes offload-params prompt-adapters served-model-name
    sleep-preserve-parameter-names
    """,
    valued="disable-access-log-for-endpoints",
)

PROGRAMS = (
    ModelProgram(
        "https://docs.vllm.ai/en/latest/cli/serve/",
        commands("vllm vllm.entrypoints.cli.main", "serve"),
        model_position=0,
        option_types=_VLLM_TYPES,
    ),
    ModelProgram(  # a fork of vLLM
        "https://aphrodite.pygmalion.chat/usage/openai/",
        commands("aphrodite aphrodite.entrypoints.cli.main aphrodite.endpoints.cli", "run serve"),
        model_position=0,
        option_types=_VLLM_TYPES,
    ),
    ModelProgram(
        "https://docs.sglang.ai/advanced_features/server_arguments.html",
        # The model is the first argument of all, or the value of --model-path.
        commands("sglang sglang.cli.main", "serve generate"),
        options=("model-path", "model"),
        model_position=0,
    ),
    ModelProgram(
        "https://huggingface.co/docs/text-generation-inference/reference/launcher",
        # The launcher has --model-id; it starts this server with the model as an argument.
        commands("text-generation-server", "serve download-weights quantize"),
        model_position=0,
        option_types=option_types("sharded json-output auto-convert act-order trust-remote-code"),
    ),
    ModelProgram(
        "https://nvidia.github.io/TensorRT-LLM/commands/trtllm-serve/trtllm-serve.html",
        (
            *commands("trtllm-serve tensorrt_llm.commands.serve"),
            *commands("trtllm-serve tensorrt_llm.commands.serve", "serve grpc mm_embedding_serve"),
        ),
        model_position=0,
        option_types=option_types("fail-fast-on-attention-window-too-large"),
    ),
    ModelProgram(
        "https://nvidia.github.io/TensorRT-LLM/commands/trtllm-serve/trtllm-serve.html",
        # A file of the configuration names the models of these.
        commands(
            "trtllm-serve tensorrt_llm.commands.serve", "disaggregated disaggregated_mpi_worker"
        ),
    ),
    ModelProgram(
        "https://lmdeploy.readthedocs.io/en/latest/llm/api_server.html",
        commands("lmdeploy", "serve:api_server serve:gradio chat chat:turbomind chat:torch"),
        model_position=0,
        option_types=option_types(
            """
            dummy-prefill eager-mode empty-init language-model-only search-scale ssl stream-output
            """,
            "adapters allow-headers allow-methods allow-origins allowed-media-domains api-keys"
            " cudagraph-capture-batch-sizes",
        ),
    ),
    ModelProgram(
        "https://llm.mlc.ai/docs/deploy/rest.html",
        commands("mlc_llm", "serve chat"),
        model_position=0,
        option_types=option_types(
            lists="additional-models", valued="allow-origins allow-methods allow-headers"
        ),
    ),
    ModelProgram(
        "https://github.com/Lightning-AI/litgpt/blob/main/tutorials/0_to_litgpt.md",
        commands(
            "litgpt",
            """
            serve chat generate generate_full generate_adapter generate_adapter_v2
            generate_sequentially generate_tp evaluate pretrain finetune finetune_lora finetune_full
            finetune_adapter finetune_adapter_v2
            """,
        ),
        model_position=0,
    ),
    ModelProgram(
        "https://github.com/Lightning-AI/litgpt/blob/main/tutorials/inference.md",
        commands("litgpt", "generate_speculatively"),
        model_position=1,  # the draft model is the first
    ),
    ModelProgram(
        "https://docs.ollama.com/cli",
        commands("ollama", "run"),
        model_position=0,
        option_types=option_types(
            "verbose insecure nowordwrap hidethinking think experimental experimental-yolo"
        ),
    ),
    ModelProgram(
        "https://github.com/containers/ramalama/blob/main/docs/ramalama-serve.1.md",
        commands("ramalama", "run serve"),
        model_position=0,
        option_types=option_types("detach d dryrun generate-only nocontainer privileged"),
    ),
    ModelProgram(
        "https://github.com/bentoml/OpenLLM#readme",
        commands("openllm", "serve run start"),
        model_position=0,
        option_types=option_types("verbose"),
    ),
    ModelProgram(
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        commands(
            """
            llama-server llama-cli llama-completion llama-bench llama-batched llama-batched-bench
            llama-perplexity llama-embedding llama-parallel llama-simple llama-simple-chat
            llama-speculative llama-speculative-simple llama-lookahead llama-lookup llama-imatrix
            llama-mtmd-cli llama-llava-cli llama-qwen2vl-cli llama-minicpmv-cli llama-gemma3-cli
            llama-diffusion-cli llama-tts llama-retrieval llama-passkey llama-finetune llama-box
            whisper-cli whisper-server whisper-bench whisper-stream whisper-command whisperfile
            llamafile llamafiler
            """
        ),
        options=("hf-repo", "hfr", "hf", "docker-repo", "dr", "m", "model", "mu", "model-url"),
    ),
    ModelProgram(
        "https://github.com/ggml-org/llama.cpp/tree/master/tools/run",
        commands("llama-run"),
        model_position=0,
        option_types=option_types("v verbose"),
    ),
    ModelProgram(
        "https://github.com/LostRuins/koboldcpp/wiki",
        commands(
            "koboldcpp koboldcpp-linux-x64 koboldcpp-linux-x64-nocuda koboldcpp-linux-x64-oldpc"
        ),
        model_position=0,
        option_types=option_types(
            """
            debugmode flashattention highpriority launch multiuser nocertify noavx2 nommap
            quiet remotetunnel showgui skiplauncher smartcontext usecpu usemlock
            """
        ),
        options=("model", "m"),
    ),
    ModelProgram(
        "https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/interface.md",
        commands("lm_eval lm-eval lm_eval.__main__"),
        model_arguments=("model-args", "a"),
    ),
    ModelProgram(
        "https://huggingface.co/docs/lighteval/quicktour",
        commands("lighteval", "accelerate nanotron vllm sglang custom"),
        model_position=0,
        model_arguments=("",),
    ),
    ModelProgram(
        "https://verl.readthedocs.io/en/latest/examples/config.html",
        commands(
            "verl.trainer.main_ppo verl.trainer.main_generation verl.trainer.fsdp_sft_trainer"
            " verl.trainer.sft_trainer verl.trainer.main_eval main_ppo"
        ),
        settings=("actor_rollout_ref.model.path", "model.path", "model.partial_pretrain"),
    ),
    ModelProgram(
        "https://docs.ultralytics.com/usage/cli/",
        commands("yolo"),
        settings=("model",),
    ),
    ModelProgram(
        "https://inference.readthedocs.io/en/latest/models/lora.html",
        commands("xinference", "launch"),
        options=("model-name", "n"),
    ),
    ModelProgram(
        "https://github.com/openai/whisper#command-line-usage",
        commands("whisper whisper-ctranslate2 faster-whisper"),
    ),
)

MODEL_OPTIONS = (
    "pretrained-model-name-or-path",
    "model-name-or-path",
    "actor-model-name-or-path",
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
    "pretrain",
    "repo-id",
    "initial-checkpoint-dir",
    "checkpoint-dir",
    "checkpoint-path",
    "ckpt-dir",
    "ckpt-path",
    "ckpt",
    "diffusion-model",
    "model-url",
    "served-model-name",
)
"""Options of any program whose value is the model, the most specific first."""

MODEL_SETTINGS = (
    "actor_rollout_ref.model.path",
    "model_name_or_path",
    "pretrained_model_name_or_path",
    "model_id",
    "base_model",
    "policy.model_name",
    "model.path",
    "model.partial_pretrain",
    "restore_from_path",
    "checkpointer.checkpoint_dir",
)
"""Keys, or ends of keys, of ``key=NAME`` arguments of any program, the most specific first.

Sources: Hydra's and OmegaConf's command lines of verl, NeMo, NeMo RL, torchtune and TRL."""
