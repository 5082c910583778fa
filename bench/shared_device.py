"""One device, shared: time to first token while a full fine-tuning job trains between the steps,
beside the same service with the job held back. Alternating in one run, by `assign`.

    build/venv/bin/python bench/shared_device.py [--rounds 6] [--requests 12] [--json FILE]

What a layer takes: `build/bench/bench_pieces`, with the job's rows (4 slots of up to 256 tokens).
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from day_trace import leases, quantile, start_job  # noqa: E402
from support.tandem_server import QUICKSTART, Server, fresh_home  # noqa: E402

import http.client  # noqa: E402

PROMPT, ANSWER = 48, 8


def first_token(server, model, seed):
    """Seconds to the first token of one request that runs alone."""
    ids = [1000 + (seed * 7919 + i * 104729) % 39000 for i in range(PROMPT)]
    connection = http.client.HTTPConnection(*server.host_port)
    body = json.dumps({"model": model, "prompt": ids, "max_tokens": ANSWER, "stream": True,
                       "temperature": 0, "ignore_eos": True})
    began = time.perf_counter()
    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    while not (line := answer.readline()).startswith(b"data: {"):
        if not line:
            raise ConnectionError("the stream broke off")
    took = time.perf_counter() - began
    answer.read()
    connection.close()
    return took


def become(server, device, role):
    server.post("/admin/assign", {"device": device, "role": role})
    held = lambda: all(d["role"] == role and not d["moving_to"]  # noqa: E731
                       for d in leases(server)["devices"])
    if not server.wait_until(held):
        raise RuntimeError(f"{device} did not become {role}: {leases(server)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=12, help="of each side in a round")
    parser.add_argument("--json")
    options = parser.parse_args()
    took = {"serve": [], "shared": []}
    with tempfile.TemporaryDirectory() as folder, \
            Server("--set", "devices.isolation=none", "--set", "model.kv_memory=256MiB", "--set", "serve.prefix_cache=false",
                   model=QUICKSTART, TANDEM_HOME=fresh_home(folder)) as server:
        model = json.loads(server.get("/v1/models"))["data"][0]["id"]
        device = leases(server)["devices"][0]["device"]
        start_job(server, folder, 1)
        seed = 0
        for _ in range(options.rounds):
            for role, into in took.items():
                become(server, device, role)
                for _ in range(options.requests):
                    seed += 1
                    into.append(first_token(server, model, seed))
    idle, shared = (statistics.median(took[role]) for role in ("serve", "shared"))
    print(f"time to first token, prompts of {PROMPT}: {idle * 1e3:.1f} ms with the job held back, "
          f"{shared * 1e3:.1f} ms while it trains (p99 {quantile(took['serve'], .99) * 1e3:.1f} / "
          f"{quantile(took['shared'], .99) * 1e3:.1f}); 1.5 times the first is {1.5e3 * idle:.1f} ms")
    if options.json:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True,
                                text=True, cwd=pathlib.Path(__file__).parent).stdout.strip()
        pathlib.Path(options.json).write_text(json.dumps(
            {"commit": commit, "command": " ".join(sys.argv), "load": os.getloadavg()[0],
             "ttft_held_back_s": took["serve"], "ttft_shared_s": took["shared"]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
