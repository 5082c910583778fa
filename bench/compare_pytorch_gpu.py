"""Full fine-tuning of a Llama on one GPU: tandem beside PyTorch in one run, alternating.

    python3 bench/random_model.py bench/configs/llama_135m /tmp/llama_135m
    python3 bench/compare_pytorch_gpu.py /tmp/llama_135m --rows 8 --length 1024 [--json FILE]

PyTorch: a plain Llama with scaled_dot_product_attention, float32 masters under bfloat16 autocast,
torch.compile, the fused AdamW and clip_grad_norm_. tandem: `tandem bench train` at its default
precision. A round is some counted steps of each after two that are not; what is quoted is the ratio
of medians. The rate of bfloat16 products that the same run measures (8192 cubed) is there beside.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F
from torch import nn

BINARY = os.environ.get("TANDEM_BINARY",
                        str(pathlib.Path(__file__).resolve().parents[1] / "build" / "tandem"))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        D, self.H = c["hidden_size"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        self.N, self.K = c["num_attention_heads"], c["num_key_value_heads"]
        self.eps = c["rms_norm_eps"]
        self.norm1, self.norm2 = nn.Parameter(torch.ones(D)), nn.Parameter(torch.ones(D))
        self.qkv = nn.Linear(D, (self.N + 2 * self.K) * self.H, bias=False)
        self.out = nn.Linear(self.N * self.H, D, bias=False)
        self.gate_up = nn.Linear(D, 2 * c["intermediate_size"], bias=False)
        self.down = nn.Linear(c["intermediate_size"], D, bias=False)

    def forward(self, x, cos, sin):
        B, T, D = x.shape
        q, k, v = self.qkv(F.rms_norm(x, (D,), self.norm1, self.eps)).split(
            [self.N * self.H, self.K * self.H, self.K * self.H], -1)

        def turned(y, heads):
            y = y.view(B, T, heads, self.H).transpose(1, 2)
            low, high = y.chunk(2, -1)
            return torch.cat((low * cos - high * sin, high * cos + low * sin), -1).to(v.dtype)
        a = F.scaled_dot_product_attention(
            turned(q, self.N), turned(k, self.K), v.view(B, T, self.K, self.H).transpose(1, 2),
            is_causal=True, enable_gqa=self.N != self.K)
        x = x + self.out(a.transpose(1, 2).reshape(B, T, self.N * self.H))
        gate, up = self.gate_up(F.rms_norm(x, (D,), self.norm2, self.eps)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self, c, length):
        super().__init__()
        D, H = c["hidden_size"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        self.embedding = nn.Embedding(c["vocab_size"], D)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["num_hidden_layers"]))
        self.norm, self.eps = nn.Parameter(torch.ones(D)), c["rms_norm_eps"]
        rates = 1.0 / c["rope_theta"] ** (torch.arange(0, H, 2) / H)
        angles = torch.outer(torch.arange(length), rates)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        x = F.rms_norm(x, (x.shape[-1],), self.norm, self.eps)
        logits = F.linear(x[:, :-1], self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


class Peer:
    def __init__(self, config, rows, length):
        self.model = Llama(config, length).cuda()
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.compiled = torch.compile(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)
        self.ids = torch.randint(0, config["vocab_size"], (rows, length), device="cuda",
                                 generator=torch.Generator("cuda").manual_seed(1))

    def step(self):
        torch.cuda.synchronize()
        began = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = self.compiled(self.ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        return time.perf_counter() - began


def ours(model, rows, length, steps):
    done = subprocess.run([BINARY, "bench", "train", "--json", "--device", "cuda:0", "--model",
                           str(model), "--method", "full", "--rows", str(rows), "--length",
                           str(length), "--steps", str(steps)],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["step_seconds"]


def matrix_rate(size=8192):
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        began = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2.0 * size ** 3 / best


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path)
    asked = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    config = json.loads((asked.model / "config.json").read_text())
    peer = Peer(config, asked.rows, asked.length)
    for _ in range(2):
        peer.step()
    times = {"tandem": [], "pytorch": []}
    for _ in range(asked.rounds):
        times["tandem"] += ours(asked.model, asked.rows, asked.length, asked.steps)
        times["pytorch"] += [peer.step() for _ in range(asked.steps)]
    tokens = asked.rows * asked.length
    rate = matrix_rate()
    medians = {who: statistics.median(of) for who, of in times.items()}
    found = {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
        "model": asked.model.name, "parameters": peer.parameters, "rows": asked.rows,
        "length": asked.length, "matrix_rate": rate,
        "step_seconds": medians,
        "tokens_per_second": {who: tokens / of for who, of in medians.items()},
        "share_of_matrix_rate": {who: 6.0 * peer.parameters * tokens / of / rate
                                 for who, of in medians.items()},
        "tandem_times_as_fast": medians["pytorch"] / medians["tandem"]}
    print(json.dumps(found, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
