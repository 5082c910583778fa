"""Writes tests/golden/fp8: small random models as FP8 checkpoints of every kind that is read, and
what Hugging Face's implementations make of their weights (number * scale) in float64.

    python tests/golden/make/fp8.py    # torch, transformers, safetensors; a minute of one core
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

OUT = pathlib.Path(__file__).resolve().parent.parent / "fp8"
LARGEST = 448.0
COMMON = {
    "vocab_size": 320,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def blocks(weight, rows, columns, scale_type):
    """Numbers and scales of blocks; the last of each side may be smaller."""
    height = -(-weight.shape[0] // rows)
    width = -(-weight.shape[1] // columns)
    scales = torch.empty(height, width, dtype=torch.float32)
    for i in range(height):
        for j in range(width):
            block = weight[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            scales[i, j] = block.abs().max() / LARGEST
    scales = scales.to(scale_type)
    spread = scales.float().repeat_interleave(rows, 0)[: weight.shape[0]]
    spread = spread.repeat_interleave(columns, 1)[:, : weight.shape[1]]
    numbers = (weight / spread).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return numbers, scales, numbers.float() * spread


def by_blocks(name, weight):
    numbers, scales, exact = blocks(weight, 128, 128, torch.float32)
    return {name: numbers, name + "_scale_inv": scales}, exact


def by_tensor(name, weight):
    numbers, scales, exact = blocks(weight, *weight.shape, torch.float32)
    module = name.removesuffix(".weight")
    return {
        name: numbers,
        name + "_scale": scales[0, 0],
        module + ".input_scale": torch.tensor(0.03),
    }, exact


def by_channel(name, weight):
    numbers, scales, exact = blocks(weight, 1, weight.shape[1], torch.bfloat16)
    return {name: numbers, name + "_scale": scales}, exact


def compressed(weights):
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "input_activations": {"dynamic": True, "num_bits": 8, "strategy": "token"},
                "output_activations": None,
                "weights": {"dynamic": False, "num_bits": 8, "symmetric": True, "type": "float"}
                | weights,
            }
        },
    }


FINE_GRAINED = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
    "modules_to_not_convert": ["lm_head"],
}
MODELS = {
    "qwen3_blocks": (
        COMMON
        | {"model_type": "qwen3", "hidden_size": 160, "intermediate_size": 192, "head_dim": 40}
        | {"tie_word_embeddings": True},
        FINE_GRAINED,
        by_blocks,
    ),
    "qwen3_moe_blocks": (
        COMMON
        | {"model_type": "qwen3_moe", "hidden_size": 160, "intermediate_size": 96}
        | {"head_dim": 16, "moe_intermediate_size": 48, "num_experts": 4}
        | {"num_experts_per_tok": 2, "norm_topk_prob": True, "tie_word_embeddings": True},
        FINE_GRAINED,
        by_blocks,
    ),
    "llama_tensor": (
        COMMON
        | {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96}
        | {"tie_word_embeddings": False},
        {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]},
        by_tensor,
    ),
    "phi3_channel": (
        COMMON
        | {"model_type": "phi3", "hidden_size": 64, "intermediate_size": 96}
        | {"tie_word_embeddings": False},
        compressed({"strategy": "channel"}),
        by_channel,
    ),
}


def expected(model):
    torch.manual_seed(7)
    prompt = [1] + torch.randint(3, 320, (39,)).tolist()
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0]
        next_ids = torch.tensor(prompt[1:])
        logprobs = torch.log_softmax(logits[:-1], -1).gather(1, next_ids[:, None])[:, 0]
        greedy = prompt[:8]
        for _ in range(16):
            greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
    return {
        "prompt_ids": prompt,
        "logits_last": logits[-1].tolist(),
        "logprob_of_next": logprobs.tolist(),
        "greedy": {"prompt": prompt[:8], "ids": greedy[8:]},
    }


def stored_names(state, moe):
    """The state of a model as files of its family name it: an expert's matrices apart."""
    for name, tensor in state.items():
        if moe and name.endswith("experts.gate_up_proj"):
            for e, both in enumerate(tensor):
                gate, up = both.chunk(2)
                base = name.removesuffix("gate_up_proj") + f"{e}."
                yield base + "gate_proj.weight", gate
                yield base + "up_proj.weight", up
        elif moe and name.endswith("experts.down_proj"):
            for e, down in enumerate(tensor):
                yield name.removesuffix("down_proj") + f"{e}.down_proj.weight", down
        else:
            yield name, tensor


def is_quantized(name):
    return name.endswith("_proj.weight")


def write(name, settings, quantization, quantize):
    settings = dict(settings)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(sum(name.encode()))
    model = AutoModelForCausalLM.from_config(config, experts_implementation="eager").float()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                # Rows of unlike sizes, so that scales differ.
                torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
                weight.mul_(torch.linspace(0.5, 1.5, weight.shape[-2])[:, None])
            else:
                torch.nn.init.normal_(weight, mean=1.0, std=0.1)
            weight.copy_(weight.to(torch.bfloat16))
        files = {}
        moe = config.model_type == "qwen3_moe"
        for stored, weight in stored_names(model.state_dict(), moe):
            if stored == "lm_head.weight" and config.tie_word_embeddings:
                continue
            if is_quantized(stored):
                tensors, exact = quantize(stored, weight)
                weight.copy_(exact)  # a view of the model's own
                files |= tensors
            else:
                files[stored] = weight.to(torch.bfloat16)
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in files.items()}, folder / "model.safetensors")
    described = config.to_dict() | {"quantization_config": quantization, "dtype": "bfloat16"}
    described["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    (folder / "expected.json").write_text(json.dumps(expected(model.double())) + "\n")


for kind, model in MODELS.items():
    write(kind, *model)
