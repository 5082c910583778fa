"""Clients at once against a model of random weights on one GPU, through HTTP: prompts of 64 token ids,
so many new tokens each, greedy and drawn.

    TANDEM_BINARY=build/tandem python3 bench/serve_gpu.py [--model bench/configs/llama_8b]
        [--streams 1,64] [--tokens 256] [--rounds 3] [--isolation process] [--json FILE]
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = os.environ.get("TANDEM_BINARY", str(ROOT / "build" / "tandem"))


def post(address, body):
    asked = urllib.request.Request(address + "/v1/completions", json.dumps(body).encode(),
                                   {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=300) as answer:
        return json.load(answer)


def load(address, model, streams, tokens, how):
    """Seconds that all of them together took."""
    def one(i):
        answer = post(address, {"model": model, "max_tokens": tokens, "ignore_eos": True,
                                "prompt": [(i * 7 + j * 13) % 1000 + 10 for j in range(64)], **how})
        assert answer["usage"]["completion_tokens"] == tokens, answer["usage"]
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        list(pool.map(one, range(streams)))
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "bench" / "configs" / "llama_8b"))
    parser.add_argument("--streams", default="1,64")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--isolation", default="process")
    parser.add_argument("--json", type=pathlib.Path)
    asked = parser.parse_args()
    server = subprocess.Popen(
        [BINARY, "up", "--model", asked.model, "--set", "model.format=dummy", "--set",
         "model.context_length=2048", "--set", "devices.list=cuda:0", "--set",
         f"devices.isolation={asked.isolation}", "--set", "server.port=0"],
        stdout=subprocess.PIPE, text=True)
    try:
        for line in server.stdout:
            if ready := re.match(r"ready (\S+) in (\d+) ms", line):
                break
        else:
            raise SystemExit("the server did not come up")
        address, found = ready[1], {"ready_ms": int(ready[2]), "isolation": asked.isolation}
        with urllib.request.urlopen(address + "/v1/models") as answer:
            model = json.load(answer)["data"][0]["id"]
        for streams in map(int, asked.streams.split(",")):
            for name, how in (("greedy", {"temperature": 0}),
                              ("drawn", {"temperature": 1, "top_p": 0.95})):
                rates = [streams * asked.tokens / load(address, model, streams, asked.tokens, how)
                         for _ in range(asked.rounds)]
                found[f"streams_{streams}_{name}"] = [round(rate, 1) for rate in rates]
                print(streams, name, found[f"streams_{streams}_{name}"], flush=True)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    print(json.dumps(found))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
