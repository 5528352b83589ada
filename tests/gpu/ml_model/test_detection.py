"""Models by real-life command lines, and what must never come out of one."""

from __future__ import annotations

import base64
import random
import re
import shlex
import string
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canhazgpu.gpu.ml_model.detection import detect_model
from canhazgpu.gpu.ml_model.name_parser import MAX_MODEL_NAME, parse_model_name
from canhazgpu.gpu.ml_model.short_name import short_model_name
from canhazgpu.gpu.secret_detection import looks_secret

LLAMA = "meta-llama/Llama-2-7b-chat-hf"
CACHE = "/root/.cache/huggingface/hub"
HASH = "f5db02db724555f92da89c216ac04704f23d4590"
BLOB = "/usr/share/ollama/.ollama/models/blobs/sha256-" + "8934d96d3f08982e" * 4

NAMED = [
    # vLLM
    (f"/opt/venv/bin/python3 /opt/venv/bin/vllm serve {LLAMA}", LLAMA),
    (f"vllm serve {LLAMA} --tensor-parallel-size 2 --api-key token-abc123", LLAMA),
    (f"vllm serve --port 8000 --enforce-eager {LLAMA}", LLAMA),
    (f"vllm serve --model {LLAMA} --tokenizer mistralai/Mistral-7B-v0.1", LLAMA),
    ("vllm serve /models/Qwen2.5-72B-Instruct-AWQ/ --quantization awq", "Qwen2.5-72B-Instruct-AWQ"),
    ("vllm serve /model --served-model-name Qwen/Qwen3-32B", "Qwen/Qwen3-32B"),
    (f"python3 -m vllm.entrypoints.openai.api_server --model={LLAMA} --dtype auto", LLAMA),
    (f"python -m vllm.entrypoints.openai.api_server --model {CACHE}/models--meta-llama--Llama-2-7b"
     f"-chat-hf/snapshots/{HASH}", LLAMA),
    (f"/usr/bin/python3 -m vllm.entrypoints.cli.main serve {LLAMA}", LLAMA),
    ("vllm serve RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8",
     "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8"),
    # Hugging Face's servers
    (f"text-generation-launcher --model-id {LLAMA} --num-shard 4 --port 80", LLAMA),
    (f"/opt/conda/bin/python3.10 /opt/conda/bin/text-generation-server serve {LLAMA} --sharded"
     " --logger-level INFO --uds-path /tmp/text-generation-server", LLAMA),
    ("text-embeddings-router --model-id BAAI/bge-large-en-v1.5", "BAAI/bge-large-en-v1.5"),
    # SGLang
    (f"python3 -m sglang.launch_server --model-path {LLAMA} --tp 8", LLAMA),
    ("python -m sglang.launch_server --model deepseek-ai/DeepSeek-V3 --trust-remote-code",
     "deepseek-ai/DeepSeek-V3"),
    # llama.cpp and its like
    ("./llama-server -m /data/models/llama-2-7b-chat.Q4_K_M.gguf -ngl 99 -c 4096",
     "llama-2-7b-chat.Q4_K_M"),
    ("llama-server -hf ggml-org/gemma-3-1b-it-GGUF:Q4_K_M", "ggml-org/gemma-3-1b-it-GGUF:Q4_K_M"),
    ("llama-cli --hf-repo TheBloke/Llama-2-7B-Chat-GGUF --hf-file llama-2-7b-chat.Q8_0.gguf",
     "TheBloke/Llama-2-7B-Chat-GGUF"),
    ("./main -m models/7B/ggml-model-q4_0.gguf -n 128", "ggml-model-q4_0"),
    ("llama-server --model /m/DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf", "DeepSeek-R1-UD-IQ1_S"),
    ("python3 -m llama_cpp.server --model ./mistral-7b-v0.1.Q5_K_S.gguf",
     "mistral-7b-v0.1.Q5_K_S"),
    ("koboldcpp --model /srv/llm/airoboros-l2-13b.ggmlv3.q4_K_S.bin",
     "airoboros-l2-13b.ggmlv3.q4_K_S"),
    ("ollama runner --model /home/ann/my-finetune.gguf --port 41000", "my-finetune"),
    # other servers
    ("trtllm-serve nvidia/Llama-3.1-8B-Instruct-FP8 --backend pytorch",
     "nvidia/Llama-3.1-8B-Instruct-FP8"),
    ("trtllm-serve serve TinyLlama/TinyLlama-1.1B-Chat-v1.0", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
    ("lmdeploy serve api_server internlm/internlm2_5-7b-chat --server-port 23333",
     "internlm/internlm2_5-7b-chat"),
    ("aphrodite run PygmalionAI/pygmalion-2-13b", "PygmalionAI/pygmalion-2-13b"),
    ("python -m mlc_llm serve HF://mlc-ai/Llama-3-8B-Instruct-q4f16_1-MLC",
     "mlc-ai/Llama-3-8B-Instruct-q4f16_1-MLC"),
    ("python3 -m fastchat.serve.model_worker --model-path lmsys/vicuna-7b-v1.5 --port 21002",
     "lmsys/vicuna-7b-v1.5"),
    ("xinference launch --model-name qwen2.5-instruct --model-engine vllm", "qwen2.5-instruct"),
    # training and evaluation
    (f"python train.py --model_name_or_path {LLAMA} --model_type llama", LLAMA),
    (f"/usr/bin/python3 /usr/bin/torchrun --nproc_per_node 8 finetune.py --model {LLAMA}", LLAMA),
    ("accelerate launch --num_processes 4 train_text_to_image.py"
     " --pretrained_model_name_or_path=runwayml/stable-diffusion-v1-5",
     "runwayml/stable-diffusion-v1-5"),
    ("deepspeed --num_gpus 8 run_clm.py --model_name_or_path EleutherAI/gpt-neox-20b"
     " --deepspeed ds.json", "EleutherAI/gpt-neox-20b"),
    ("python finetune.py --base_model huggyllama/llama-7b --data_path alpaca.json",
     "huggyllama/llama-7b"),
    ("lm_eval --model hf --model_args pretrained=EleutherAI/pythia-160m,dtype=float --tasks arc",
     "EleutherAI/pythia-160m"),
    ("python generate.py --model-id google/gemma-2-9b-it", "google/gemma-2-9b-it"),
    ("python main.py --model resnet50 --batch-size 256", "resnet50"),
    ("litgpt finetune_lora checkpoints/meta-llama/Llama-2-7b-hf --data Alpaca", "Llama-2-7b-hf"),
    ("python -m trl sft model_name_or_path=Qwen/Qwen2-0.5B", "Qwen/Qwen2-0.5B"),
    ("python eval.py --model-path /data/models/Llama-2-7b-chat-hf", "Llama-2-7b-chat-hf"),
    ("python eval.py --model ./runs/llama-sft-v3/checkpoint-500/model.safetensors --x",
     None),
    ("python eval.py --model /scratch/ann/runs/llama-sft-v3/checkpoint-500", "llama-sft-v3"),
    ("python eval.py --model s3://bucket/models/Llama-2-7b-hf", "Llama-2-7b-hf"),
    (f"python eval.py --model https://huggingface.co/{LLAMA}/tree/main", LLAMA),
    # speech and pictures
    ("/usr/bin/python3 /usr/local/bin/whisper talk.mp3 --model large-v3", "whisper-large-v3"),
    ("whisper-cli -m models/ggml-base.en.bin -f talk.wav", "ggml-base.en"),
    ("python webui.py --ckpt models/Stable-diffusion/sd_xl_base_1.0.safetensors",
     "sd_xl_base_1.0"),
    # wrappers
    (f"env HF_HOME=/data CUDA_VISIBLE_DEVICES=0 vllm serve {LLAMA}", LLAMA),
    (f"bash -c 'cd /srv && export A=1; exec vllm serve \"{LLAMA}\" | tee log'", LLAMA),
    (f"/bin/bash -lc 'vllm serve \\\n  {LLAMA} \\\n  --port 1'", LLAMA),
    (f"srun --gres=gpu:2 -n 2 bash -c 'python t.py --model {LLAMA}'", LLAMA),
    (f"mpirun -np 8 -x HF_TOKEN python train.py --model_name_or_path {LLAMA}", LLAMA),
    (f"nsys profile -o out --trace=cuda python train.py --model={LLAMA}", LLAMA),
    ("numactl --cpunodebind=0 --membind=0 ./llama-server -m /m/phi-2.Q4_0.gguf", "phi-2.Q4_0"),
    (f"apptainer exec --nv vllm.sif vllm serve {LLAMA}", LLAMA),
    (f"uv run --with vllm vllm serve {LLAMA}", LLAMA),
    (f"conda run -n llm --no-capture-output python t.py --model {LLAMA}", LLAMA),
    (f"canhazgpu run --gpus 2 -- python train.py --model {LLAMA}", LLAMA),
    (f"timeout 2h nice -n 5 vllm serve {LLAMA}", LLAMA),
]  # fmt: skip

NAMELESS = [
    "",
    "python3 train.py",
    "python3 -m torch.distributed.run --nproc_per_node 2 train.py",
    "/usr/lib/xorg/Xorg -core :0 -seat seat0",
    "nvidia-cuda-mps-server",
    "VLLM::EngineCore",
    "VLLM::Worker_TP0",
    "sglang::scheduler_TP0",
    "ray::RayWorkerWrapper.execute_method",
    "/usr/bin/python3 -m ipykernel_launcher -f /home/ann/kernel-1.json",
    "/usr/bin/python3 -c 'from multiprocessing.spawn import spawn_main; spawn_main()' --multi-fork",
    f"/usr/bin/ollama runner --model {BLOB} --ctx-size 8192 --port 39000",
    "ollama serve",
    "python main.py --listen 0.0.0.0 --port 8188",
    "accelerate launch -m axolotl.cli.train llama.yml",
    "python train.py --model configs/llama.yaml",
    "vllm serve /model",
    "vllm serve $MODEL --port 8000",
    "vllm serve --help",
    "vllm serve --model --port 1",
    "vllm serve --api-key first-key second-key",
    "tritonserver --model-repository=/models",
    "python train.py --model hf",
    "python train.py --model 7",
    "python train.py --model ../..",
    "python train.py --model 'a b'",
    "python train.py --model '\x1b[31mllama'",
    "python train.py --model llama\ufffd",
    "python train.py --model " + "a" * 200,
    "python train.py --model http://user:hunter2@host/llama",
    "python train.py --model user:hunter2@host",
    "python train.py --model user:hunter2",
    "python train.py --model https://b.s3.amazonaws.com/llama.gguf?X-Amz-Signature=0a1b&X=2",
    "python train.py --model hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "python train.py --model sk-proj-abc",
    "vllm serve org/hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "bash -c 'vllm serve",
    "bash -c",
    "tmux new -s work vllm serve " + LLAMA,
    "node /usr/bin/claude --model opus",
]


@pytest.mark.parametrize(("line", "model"), NAMED)
def test_models_by_their_command_lines(line: str, model: str | None) -> None:
    assert detect_model([shlex.split(line)]) == model


@pytest.mark.parametrize("line", NAMELESS)
def test_command_lines_that_name_none(line: str) -> None:
    try:
        arguments = shlex.split(line)
    except ValueError:
        arguments = line.split(" ", 2)
    assert detect_model([arguments]) is None


def test_the_nearest_that_names_one_counts() -> None:
    worker, engine = ["VLLM::Worker_TP0"], ["VLLM::EngineCore"]
    server = ["python3", "/usr/bin/vllm", "serve", LLAMA]
    script = ["bash", "run.sh", "--model", "other/model"]
    assert detect_model([worker, engine, server, script]) == LLAMA
    assert detect_model([worker, script]) == "other/model"
    assert detect_model([worker, (), ["-bash"]]) is None
    assert detect_model([]) is None


@pytest.mark.parametrize(
    "session",
    [
        ["tmux", "new", "-s", "x", "vllm", "serve", LLAMA],
        ["sshd: ann@pts/0 --model other/model"],
        ["slurmstepd: [12.batch]"],
        ["node", "/usr/bin/claude", "--model", "opus"],
    ],
)
def test_a_session_is_no_models_and_nothing_above_it_counts(session: list[str]) -> None:
    above = ["vllm", "serve", LLAMA]
    assert detect_model([["python3"], ["bash"], session, above]) is None
    assert detect_model([["python3", "t.py", "--model", LLAMA], session]) == LLAMA


REAL_IDS = [
    "01-ai/Yi-1.5-34B-Chat-16K",
    "CohereForAI/c4ai-command-r-plus-4bit",
    "HuggingFaceH4/zephyr-7b-beta",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "NousResearch/Nous-Hermes-2-Mixtral-8x7B-DPO",
    "OpenGVLab/InternVL2-8B",
    "Qwen/Qwen2.5-Coder-32B-Instruct-GPTQ-Int4",
    "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8",
    "RedHatAI/Qwen3-8B-FP8-W4A16",
    "TheBloke/Mixtral-8x7B-Instruct-v0.1-GPTQ-4bit-32g-actorder_True",
    "bigscience/bloomz-7b1-mt",
    "black-forest-labs/FLUX.1-schnell",
    "codellama/CodeLlama-70b-Instruct-hf",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
    "facebook/opt-66b",
    "google/flan-t5-xxl",
    "gpt2",
    "gpt2-xl",
    "ibm-granite/granite-3.1-8b-instruct",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "microsoft/Phi-3-mini-128k-instruct",
    "microsoft/Phi-3.5-MoE-instruct",
    "mistralai/Ministral-8B-Instruct-2410",
    "mosaicml/mpt-30b-chat",
    "neuralmagic/Meta-Llama-3.1-405B-Instruct-quantized.w4a16",
    "openai/whisper-large-v3",
    "nvidia/Llama-3_1-Nemotron-Ultra-253B-v1",
    "openai/gpt-oss-120b",
    "sentence-transformers/all-MiniLM-L6-v2",
    "stabilityai/stable-diffusion-xl-base-1.0",
    "tiiuae/falcon-180B-chat",
    "unsloth/Meta-Llama-3.1-8B-bnb-4bit",
    "bert-base-uncased",
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
    "vit_large_patch16_384",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "intfloat/multilingual-e5-large-instruct",
    "llama3:8b",
    "cross-encoder/ms-marco-MiniLM-L-6-v2",
    "Salesforce/blip2-opt-2.7b",
    "THUDM/chatglm3-6b",
    "baichuan-inc/Baichuan2-13B-Chat",
]


@pytest.mark.parametrize("name", REAL_IDS)
def test_ids_that_exist_are_no_secrets(name: str) -> None:
    assert parse_model_name(name) == name


@pytest.mark.parametrize(
    ("name", "short"),
    [
        (LLAMA, "llama-2-7b-chat"),
        ("TheBloke/Llama-2-7B-Chat-GGUF", "llama-2-7b-chat"),
        ("ggml-org/gemma-3-1b-it-GGUF:Q4_K_M", "gemma-3-1b-it"),
        ("llama-2-7b-chat.Q4_K_M", "llama-2-7b-chat"),
        ("RedHatAI/Qwen3-8B-FP8-W4A16", "qwen3-8b"),
        ("mlc-ai/Llama-3-8B-Instruct-q4f16_1-MLC", "llama-3-8b-instruct"),
        ("gpt2", "gpt2"),
        ("hf", "hf"),
        ("org/GGUF", "gguf"),
        ("Qwen/Qwen2.5-0.5B", "qwen2.5-0.5b"),
    ],
)
def test_the_short_form(name: str, short: str) -> None:
    assert short_model_name(name, 20) == short


@pytest.mark.parametrize("width", range(40))
def test_the_short_form_is_never_wider(width: int) -> None:
    long = "mistralai/Mixtral-8x22B-Instruct-Preview-v0.3"
    assert len(short_model_name(long, width)) == min(width, len(long.partition("/")[2]))


BASE62 = string.ascii_letters + string.digits


def token(prefix: str, length: int, letters: str = BASE62) -> Callable[[random.Random], str]:
    return lambda chance: prefix + "".join(chance.choices(letters, k=length))


SECRETS = {
    "hugging face": token("hf_", 34),
    "short hugging face": token("hf_", 12),
    "openai": token("sk-", 48),
    "openai project": token("sk-proj-", 60, BASE62 + "_-"),
    "anthropic": token("sk-ant-api03-", 80, BASE62 + "_-"),
    "github": token("ghp_", 36),
    "gitlab": token("glpat-", 20, BASE62 + "_-"),
    "slack": token("xoxb-", 24, string.digits + "-"),
    "nvidia": token("nvapi-", 64, BASE62 + "_-"),
    "aws id": token("AKIA", 16, string.ascii_uppercase + string.digits),
    "aws key": token("", 40, BASE62 + "/+"),
    "google": token("AIza", 35, BASE62 + "_-"),
    "jwt": token("eyJhbGciOiJIUzI1NiJ9.eyJ", 60, BASE62 + "_-"),
    "hex": token("", 40, "0123456789abcdef"),
    "base62": token("", 32),
    "base64": lambda chance: base64.b64encode(chance.randbytes(32)).decode(),
    "base64url": lambda chance: base64.urlsafe_b64encode(chance.randbytes(32)).decode().rstrip("="),
    "uuid": lambda chance: re.sub(
        "^(.{8})(.{4})(.{4})(.{4})", r"\1-\2-\3-\4-", chance.randbytes(16).hex()
    ),
}

PLACES = [
    "vllm serve {model} --api-key {secret}",
    "vllm serve --api-key {secret}",
    "vllm serve --api-key {secret} {secret} --model {model}",
    "vllm serve {secret}",
    "vllm serve --enforce-eager {secret}",
    "vllm serve org/{secret}",
    "vllm serve {secret}/name",
    "vllm serve https://user:{secret}@host/{model}",
    "vllm serve https://huggingface.co/{model}?token={secret}",
    "python t.py --model {secret}",
    "python t.py --model={secret}",
    "python t.py --model {model} --hf_token={secret}",
    "python t.py --model name-{secret}",
    "python t.py --model /data/{secret}",
    "python t.py --model /data/runs/{secret}/checkpoint-5",
    "python t.py --model /data/{secret}.gguf",
    "python t.py --model s3://bucket/{secret}",
    "python t.py --model models--org--{secret}/snapshots",
    "python t.py --model {model}:{secret}",
    "python t.py --served-model-name {secret}",
    "python t.py model_name_or_path={secret}",
    "lm_eval --model_args pretrained={secret},token={secret}",
    "env HF_TOKEN={secret} vllm serve {model}",
    "bash -c 'HF_TOKEN={secret} vllm serve {model} --password={secret}'",
    "bash -c 'vllm serve {secret}'",
    "llama-server -m {secret}",
    "llama-server -hf org/{secret}:Q4_K_M",
    "{secret}",
    "python {secret} --model {model}",
    "whisper --model {secret} a.mp3",
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", SECRETS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**64), place=st.sampled_from(PLACES))
def test_no_secret_ever_comes_out(kind: str, seed: int, place: str) -> None:
    secret = SECRETS[kind](random.Random(seed))
    line = place.format(secret=secret, model=LLAMA)
    found = detect_model([shlex.split(line)])
    # Not a part of it either: any 8 characters in a row of it.
    parts = {secret[start : start + 8] for start in range(len(secret) - 7)}
    assert found is None or not any(part in found for part in parts), found


@pytest.mark.slow
def test_the_generated_secrets_are_found_by_their_looks() -> None:
    chance = random.Random(1)
    for kind, make in SECRETS.items():
        missed = sum(not looks_secret(make(chance)) for _ in range(2000))
        assert missed == 0, kind


WORDS = st.sampled_from(
    [
        "vllm",
        "serve",
        "--model",
        "-m",
        "bash",
        "-c",
        "--",
        "=",
        "/",
        "models--",
        "s3://",
        LLAMA,
        "'",
    ]
)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(st.one_of(WORDS, st.text(max_size=30)), max_size=8), max_size=4))
def test_whatever_comes_out_has_the_form_of_a_name(lines: list[list[str]]) -> None:
    found = detect_model(lines)
    if found is not None:
        assert re.fullmatch(r"[A-Za-z0-9._/:-]+", found)
        assert 1 < len(found) <= MAX_MODEL_NAME


@pytest.mark.slow
@pytest.mark.parametrize(
    "hostile",
    [
        ["bash", "-c"] * 8000,
        ["bash", "-c", "bash -c " * 4000],
        ["bash", "-c", "'" + "\\" * 30000],
        ["bash", "-c", ";" * 32000],
        ["vllm", "serve"] * 8000,
        ["--model", "a-" * 16000],
        ["--model", "/" * 32000],
        ["--model", "models--" * 4000],
        ["--model", "hf://" + "a/" * 16000],
        ["--model=" + "1" * 30000 + "b"],
        ["--model_args", "pretrained=" * 3000],
    ],
    ids=lambda line: " ".join(line)[:24],
)
def test_a_hostile_command_line_takes_no_time(hostile: list[str]) -> None:
    began = time.process_time()
    detect_model([hostile])
    assert time.process_time() - began < 1  # seconds; growth with the square takes minutes
