"""Command lines as the programs' documentation prints them, and clients of remote services."""

from __future__ import annotations

import shlex

import pytest

from canhazgpu.gpu.ml_model.detection import detect_model
from canhazgpu.gpu.ml_model.program_table import MODEL_OPTIONS, PROGRAMS

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
LONG = "Llama-3.1-8B-Instruct-" + "-".join(["sft", "lora", "merged", "round"] * 5) + "-final"

SWITCHES_BEFORE_THE_MODEL = [
    f"vllm serve --headless {LLAMA}",
    f"vllm serve --async-scheduling --headless {LLAMA} --port 1",
    f"vllm serve --data-parallel-hybrid-lb --data-parallel-size 4 {LLAMA}",
    f"vllm serve -dph -dp 4 {LLAMA}",
    f"vllm serve -ep -tp 8 {LLAMA}",
    f"vllm serve --no-enable-prefix-caching --kv-sharing-fast-prefill {LLAMA}",
    f"vllm serve --enforce-eager --trust-remote-code --fully_sharded_loras {LLAMA}",
    f"vllm serve --language-model-only --numa-bind {LLAMA}",
    f"vllm serve --enable-chunked-prefill False {LLAMA}",
    f"vllm serve --disable-access-log-for-endpoints /health,/metrics {LLAMA}",
    f"vllm serve -O3 {LLAMA}",
    f"vllm serve -O 3 {LLAMA}",
    f"vllm serve --speculative-config.method ngram --grpc {LLAMA}",
    f"vllm serve --served-model-name mine yours --port 80 {LLAMA}",
    f"vllm serve --lora-modules a=/x b=/y --max-loras 2 {LLAMA}",
    f"vllm serve --api-key first-key second-key --port 1 {LLAMA}",
    f"vllm serve -- {LLAMA}",
    f"python3 -m vllm.entrypoints.cli.main serve --headless {LLAMA}",
    f"aphrodite run --launch-kobold-api -tp 2 {LLAMA}",
    f"aphrodite run --headless {LLAMA}",
    f"text-generation-server serve --sharded {LLAMA} --uds-path /tmp/x",
    f"text-generation-server serve --sharded --json-output --revision main {LLAMA}",
    f"text-generation-server serve --no-sharded {LLAMA}",
    f"text-generation-launcher --sharded true --model-id {LLAMA}",
    f"trtllm-serve {LLAMA} --tp_size 2",
    f"trtllm-serve serve --trust_remote_code {LLAMA}",
    f"trtllm-serve serve --fail_fast_on_attention_window_too_large --tp_size 2 {LLAMA}",
    f"trtllm-serve mm_embedding_serve {LLAMA}",
    f"trtllm-serve grpc {LLAMA}",
    f"python3 -m tensorrt_llm.commands.serve serve {LLAMA}",
    f"lmdeploy serve api_server --eager-mode --ssl {LLAMA}",
    f"lmdeploy serve api_server --api-keys a b --tp 2 {LLAMA}",
    f"lmdeploy chat {LLAMA} --backend pytorch",
    f"mlc_llm serve --enable-debug --allow-origins ['*'] {LLAMA}",
    f"sglang serve {LLAMA} --tp 2",
    f"sglang serve --cuda-graph-bs 1 2 4 --model-path {LLAMA}",
    f"ollama run --verbose {LLAMA} hello",
    f"openllm serve {LLAMA}",
    f"ramalama serve --detach -p 8080 {LLAMA}",
]

NAMED = [
    # lm_eval: settings as text, as words, as JSON
    (f"lm_eval --model vllm --model_args pretrained={LLAMA},tensor_parallel_size=2", LLAMA),
    (f"lm-eval run --model hf --model_args pretrained={LLAMA} dtype=float32 --tasks arc", LLAMA),
    (f"lm-eval run -M hf -a dtype=float32 pretrained={LLAMA} -t arc_easy", LLAMA),
    (f"lm_eval --model_args='pretrained={LLAMA},dtype=auto'", LLAMA),
    ("lm_eval --model vllm --model_args"
     f" '{{\"pretrained\": \"{LLAMA}\", \"dtype\": \"auto\", \"n\": {{\"a\": 1}}}}'", LLAMA),
    (f"accelerate launch -m lm_eval --model hf -a '{{\"pretrained\":\"{LLAMA}\"}}'", LLAMA),
    (f"python /opt/lm_eval/__main__.py --model hf -a pretrained={LLAMA}", LLAMA),
    ("lm_eval --model nemo_lm --model_args path=/ckpt/megatron_gpt.nemo,devices=8", "megatron_gpt"),
    (f"lighteval accelerate model_name={LLAMA},dtype=bfloat16 leaderboard", LLAMA),
    (f"lighteval vllm --max-samples 10 model_name={LLAMA} leaderboard", LLAMA),
    # programs that name it by their first argument
    ("ollama run llama3.2:1b", "llama3.2:1b"),
    ("ollama run hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0",
     "bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0"),
    ("ollama run --keepalive 5m deepseek-r1:70b 'why'", "deepseek-r1:70b"),
    ("litgpt pretrain pythia-14m --tokenizer_dir EleutherAI/pythia-14m", "pythia-14m"),
    (f"litgpt pretrain --out_dir out --data TextFiles {LLAMA}", LLAMA),
    ("litgpt evaluate checkpoints/microsoft/phi-2 --tasks truthfulqa_mc2", "phi-2"),
    ("litgpt evaluate --tasks hellaswag --batch_size 16 microsoft/phi-2", "microsoft/phi-2"),
    ("litgpt evaluate --tasks hellaswag --checkpoint_dir checkpoints/microsoft/phi-2", "phi-2"),
    ("litgpt finetune_full microsoft/phi-2 --data JSON", "microsoft/phi-2"),
    ("litgpt generate_speculatively EleutherAI/pythia-410m EleutherAI/pythia-2.8b",
     "EleutherAI/pythia-2.8b"),
    ("koboldcpp /models/airoboros-13b.Q4_K_M.gguf 5001", "airoboros-13b.Q4_K_M"),
    ("koboldcpp-linux-x64 --usecublas --model /models/mist-7b.gguf", "mist-7b"),
    # a llamafile holds its weights, unless it is given others
    ("./llava-v1.5-7b-q4.llamafile --server --nobrowser", "llava-v1.5-7b-q4"),
    ("/usr/bin/ape ./TinyLlama-1.1B-Chat-v1.0.Q5_K_M.llamafile -ngl 999",
     "TinyLlama-1.1B-Chat-v1.0.Q5_K_M"),
    ("/bin/sh /srv/llava-v1.5-7b-q4.llamafile", "llava-v1.5-7b-q4"),
    ("llamafile -m /models/Qwen2.5-7B-Instruct-Q6_K.gguf -ngl 999", "Qwen2.5-7B-Instruct-Q6_K"),
    ("./llava-v1.5-7b-q4.llamafile -m mistral-7b.Q4_0.gguf", "mistral-7b.Q4_0"),
    ("llama-server -dr ai/smollm2:135M-Q4_K_M", "ai/smollm2:135M-Q4_K_M"),
    ("llama-server -mu https://huggingface.co/org/phi-2-GGUF/resolve/main/phi-2.Q4_0.gguf",
     "org/phi-2-GGUF"),
    # training
    ("deepspeed --module openrlhf.cli.train_ppo --pretrain OpenRLHF/Llama-3-8b-sft-mixture"
     " --reward_pretrain OpenRLHF/Llama-3-8b-rm-mixture", "OpenRLHF/Llama-3-8b-sft-mixture"),
    ("python3 -m verl.trainer.main_ppo critic.model.path=Qwen/Qwen2.5-0.5B data.train=x"
     " actor_rollout_ref.model.path=Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
    ("python3 -m verl.trainer.main_ppo ++actor_rollout_ref.model.path=/data/models/Qwen3-4B",
     "Qwen3-4B"),
    ("python3 -m verl.trainer.main_generation model.path=Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
    ("torchrun --nproc_per_node=8 -m verl.trainer.fsdp_sft_trainer"
     " model.partial_pretrain=Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
    ("python main_ppo.py model.path=Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
    ("tune run full_finetune_single_device checkpointer.checkpoint_dir=/tmp/Llama-3.2-1B",
     "Llama-3.2-1B"),
    ("yolo detect train model=yolov8n.pt data=coco8.yaml", "yolov8n"),
    ("swift sft --model Qwen/Qwen2.5-7B-Instruct --train_type lora", "Qwen/Qwen2.5-7B-Instruct"),
    ("xinference launch --model-engine vllm -n qwen2.5-instruct -s 7", "qwen2.5-instruct"),
    # long names
    (f"python train.py --model {LONG}", LONG),
    (f"vllm serve some-organisation/{LONG}", f"some-organisation/{LONG}"),
    (f"vllm serve /models/{LONG}", LONG),
    # a local model that answers to the name of a service's
    ("vllm serve openai/gpt-oss-120b --served-model-name gpt-4o", "openai/gpt-oss-120b"),
    ("python eval.py --model openai/gpt-oss-20b", "openai/gpt-oss-20b"),
    ("python eval.py --model xai-org/grok-1", "xai-org/grok-1"),
    ("python eval.py --model gpt-j-6b", "gpt-j-6b"),
    ("python eval.py --model gpt2", "gpt2"),
    ("python eval.py --model Groq/Llama-3-Groq-8B-Tool-Use", "Groq/Llama-3-Groq-8B-Tool-Use"),
    ("python eval.py --model deepseek-ai/deepseek-llm-7b-chat", "deepseek-ai/deepseek-llm-7b-chat"),
    ("python eval.py --model CohereForAI/c4ai-command-r-v01", "CohereForAI/c4ai-command-r-v01"),
    ("ollama run command-r", "command-r"),
]  # fmt: skip

NAMELESS = [
    "trtllm-serve disaggregated -c disagg_config.yaml",
    "trtllm-serve disaggregated --config_file disagg_config.yaml -t 360",
    "mpirun -n 8 trtllm-serve disaggregated_mpi_worker -c disagg_config.yaml",
    "python3 -m tensorrt_llm.commands.serve disaggregated -c x",
    "litgpt pretrain --config ./pretrain-model.yaml",
    "lm_eval --model hf --tasks arc",
    "lm_eval --model hf --model_args '{\"pretrained\": 7}'",
    "lm_eval --model hf --model_args '{\"pretrained\"'",
    "ollama list",
    "verl",
]

CLIENTS = [
    "python chat.py --model gpt-4o",
    "python eval.py --model gpt-4o-mini-2024-07-18 --n 3",
    "python eval.py --model gpt-3.5-turbo",
    "python eval.py --model openai/gpt-4.1",
    "python eval.py --model o3-mini",
    "python eval.py --model_name claude-sonnet-4-20250514",
    "python eval.py --model anthropic/claude-3-5-sonnet-20241022",
    "python eval.py --model us.anthropic.claude-3-5-sonnet-20241022-v2:0",
    "python eval.py --model gemini-2.0-flash",
    "python eval.py --model google/gemini-1.5-pro",
    "python eval.py --model mistral-large-latest",
    "python eval.py --model command-r-plus",
    "python eval.py --model grok-3",
    "python eval.py --model deepseek-reasoner",
    "python eval.py --model text-embedding-3-large",
    "python eval.py --model azure/my-deployment",
    "python eval.py --model openrouter/meta-llama/llama-3-70b-instruct",
    "python eval.py --model together_ai/togethercomputer/llama-2-70b",
    f"python eval.py --model {LLAMA} --base-url https://api.together.xyz/v1",
    f"python eval.py --model {LLAMA} --api_base=http://gpu07:8000/v1",
    f"python eval.py --openai-api-base http://gpu07:8000/v1 --model {LLAMA}",
    f"vllm bench serve --model {LLAMA} --port 8000",
    f"vllm chat --model {LLAMA}",
    f"vllm complete --model {LLAMA}",
    f"python3 -m sglang.bench_serving --backend sglang --model {LLAMA}",
    f"python benchmarks/benchmark_serving.py --model {LLAMA}",
    f"genai-perf profile -m {LLAMA} --url gpu07:8000 --model {LLAMA}",
    "lm_eval --model openai-chat-completions --model_args model=gpt-4o",
    f"lm_eval --model local-completions --model_args model={LLAMA},base_url=http://gpu07:8000/v1",
    f"lm_eval --model local-chat-completions -a model={LLAMA} base_url=http://gpu07:8000/v1",
    f'lm-eval run -M local-completions -a \'{{"model": "{LLAMA}"}}\'',
    "lm_eval --model anthropic-chat --model_args model=claude-3-opus-20240229",
    f"lighteval endpoint litellm model_name={LLAMA} leaderboard",
    "ollama run gpt-oss:120b-cloud",
    "ollama run kimi-k2:1t-cloud",
    f"bash -c 'python eval.py --model {LLAMA} --base-url http://gpu07:8000/v1'",
]


@pytest.mark.parametrize("line", SWITCHES_BEFORE_THE_MODEL)
def test_a_switch_does_not_take_the_model_as_its_value(line: str) -> None:
    assert detect_model([shlex.split(line)]) == LLAMA


@pytest.mark.parametrize(("line", "model"), NAMED)
def test_each_program_names_its_model_in_its_own_way(line: str, model: str) -> None:
    assert detect_model([shlex.split(line)]) == model


@pytest.mark.parametrize("line", NAMELESS)
def test_command_lines_that_name_no_model(line: str) -> None:
    assert detect_model([shlex.split(line)]) is None


@pytest.mark.parametrize("line", CLIENTS)
def test_a_client_of_a_service_runs_no_model_here(line: str) -> None:
    assert detect_model([shlex.split(line)]) is None


def test_a_client_started_beside_a_server_does_not_hide_it() -> None:
    script = f"vllm serve {LLAMA} & python eval.py --model other --base-url http://localhost/v1"
    assert detect_model([["bash", "-c", script]]) == LLAMA


def test_a_list_that_no_option_ends_takes_what_follows_it() -> None:
    # argparse does the same: the model has to stand before, or after another option.
    assert detect_model([shlex.split(f"vllm serve --api-key first {LLAMA}")]) is None


def test_every_program_has_its_source() -> None:
    assert all(program.source.startswith("https://") for program in PROGRAMS)
    assert all(program.commands for program in PROGRAMS)
    assert len(set(MODEL_OPTIONS)) == len(MODEL_OPTIONS)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: " ".join(one.commands[0]))
def test_no_command_is_in_two_entries(program: object) -> None:
    others = [one for one in PROGRAMS if one is not program]
    taken = {words for one in others for words in one.commands}
    assert not taken.intersection(getattr(program, "commands", ()))


def test_options_are_written_as_they_are_compared() -> None:
    for program in PROGRAMS:
        types = program.option_types
        names = {*types.switches, *types.lists, *types.valued, *program.options}
        assert all(name == name.lower().lstrip("-").replace("_", "-") for name in names)
        assert not types.switches & (types.lists | types.valued)
