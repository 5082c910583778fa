"""tandem beside PyTorch in one run: fine-tuning the same weights with the same threads, alternating.

    python3 -m venv /tmp/peer && /tmp/peer/bin/pip install torch transformers peft gguf
    /tmp/peer/bin/python bench/compare_pytorch.py [--rounds 3] [--json FILE]

A round is one counted step of each after one that is not: 4 rows of 256 tokens, forward, backward,
clipping to norm 1, AdamW. Full: float32. LoRA: rank 16 on every linear layer of the blocks; PyTorch
has the base in float32 (peft over quantized weights wants a GPU), tandem has it as the file does
(Q4_1), in place with what it serves. What is quoted is the ratio of medians.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))
from support.tandem_server import BINARY, QUICKSTART, environment  # noqa: E402

import torch  # noqa: E402
import transformers  # noqa: E402

ROWS, LENGTH, RANK = 4, 256, 16
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Peer:
    def __init__(self, method, threads):
        torch.set_num_threads(threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            str(QUICKSTART.parent), gguf_file=QUICKSTART.name, dtype=torch.float32)
        if method == "lora":
            import peft
            self.model = peft.get_peft_model(self.model, peft.LoraConfig(
                r=RANK, lora_alpha=2 * RANK, target_modules=LINEAR, lora_dropout=0.0,
                task_type="CAUSAL_LM"))
        self.model.train()
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5)
        self.ids = torch.randint(0, 49152, (ROWS, LENGTH), generator=torch.manual_seed(1))

    def step(self):
        began = time.perf_counter()
        loss = self.model(input_ids=self.ids, labels=self.ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began


def ours(method, threads):
    done = subprocess.run(
        [str(BINARY), "bench", "train", "--json", "--method", method, "--rows", str(ROWS),
         "--length", str(LENGTH), "--rank", str(RANK), "--steps", "1", "--threads", str(threads),
         "--model", str(QUICKSTART)], capture_output=True, text=True, env=environment(), check=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--methods", default="full,lora")
    parser.add_argument("--json")
    options = parser.parse_args()
    figures = {}
    for method in options.methods.split(","):
        peer = Peer(method, options.threads)
        peer.step()
        sides = figures[method] = {"tandem": [], "pytorch": [], "publish_ms": []}
        for _ in range(options.rounds):
            mine = ours(method, options.threads)
            sides["tandem"].append(mine["step_seconds"][0])
            sides["publish_ms"].append(mine["publish_seconds"] * 1e3)
            sides["pytorch"].append(peer.step())
        sides["memory"] = {k: v for k, v in mine.items() if k.endswith("bytes")}
        sides["trainable_parameters"] = mine["trainable_parameters"]
        a, b = (statistics.median(sides[name]) for name in ("tandem", "pytorch"))
        tokens = ROWS * LENGTH
        print(f"{method:5} tandem {tokens / a:7.1f} tokens/s   PyTorch {tokens / b:7.1f} tokens/s   "
              f"ratio {b / a:.2f}   publish {statistics.median(sides['publish_ms']):.1f} ms",
              flush=True)
        del peer
    print(f"load {os.getloadavg()[0]:.1f}")
    if options.json:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True,
                                text=True, cwd=pathlib.Path(__file__).parent).stdout.strip()
        machine = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                       if line.startswith("model name"))
        pathlib.Path(options.json).write_text(json.dumps(
            {"commit": commit, "command": " ".join(sys.argv), "machine": machine,
             "threads": options.threads, "peer": f"torch {torch.__version__}, transformers "
             f"{transformers.__version__}", "step_seconds": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
