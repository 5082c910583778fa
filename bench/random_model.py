"""A Hugging Face folder of random bfloat16 weights for a config, so that training can be measured on
a shape without its files.

    python3 bench/random_model.py bench/configs/llama_1b /tmp/llama_1b
"""
import json
import pathlib
import random
import shutil
import struct
import sys

BLOCK = 1 << 20  # bytes of weights that repeat


def shapes(config):
    """Tensor shapes of a Llama by Hugging Face name."""
    D, F, V = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    H = config.get("head_dim") or D // config["num_attention_heads"]
    N, K = config["num_attention_heads"], config["num_key_value_heads"]
    yield "model.embed_tokens.weight", [V, D]
    yield "model.norm.weight", [D]
    if not config.get("tie_word_embeddings", False):
        yield "lm_head.weight", [V, D]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", [D]
        yield at + "post_attention_layernorm.weight", [D]
        for name, rows, columns in (("self_attn.q_proj", N * H, D), ("self_attn.k_proj", K * H, D),
                                    ("self_attn.v_proj", K * H, D), ("self_attn.o_proj", D, N * H),
                                    ("mlp.gate_proj", F, D), ("mlp.up_proj", F, D),
                                    ("mlp.down_proj", D, F)):
            yield f"{at}{name}.weight", [rows, columns]


def bfloat16(value):
    return struct.pack("<f", value)[2:]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    config = json.loads((source / "config.json").read_text())
    if config["model_type"] != "llama":
        sys.exit(f"{source}: a {config['model_type']}; this writes Llamas")
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        shutil.copy(file, target)
    header, at = {}, 0
    for name, shape in shapes(config):
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    words = random.Random(1)
    block = b"".join(bfloat16(words.gauss(0.0, 0.02)) for _ in range(BLOCK // 2))
    ones = bfloat16(1.0) * (BLOCK // 2)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(target / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, facts in header.items():
            left = facts["data_offsets"][1] - facts["data_offsets"][0]
            of = ones if len(facts["shape"]) == 1 else block
            while left > 0:
                file.write(of[:min(left, BLOCK)])
                left -= BLOCK
    print(f"{target}: {len(header)} tensors, {at / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
