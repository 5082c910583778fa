"""Two devices of one core each that hold SmolLM2 together, beside one of them alone and one device
of two threads: streams through the gateway, alternating, as ratios of medians.

    build/venv/bin/python bench/tensor_parallel.py [--rounds 5] [--seconds 6] [--json FILE]
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))
from support.tandem_server import Server, fresh_home, run_tandem  # noqa: E402

FIRST, SECOND = sorted(os.sched_getaffinity(0))[:2]
WAYS = {
    "one device of one thread": [f"cpu:{FIRST}-{FIRST}"],
    "two devices of one thread together": [f"cpu:{FIRST}-{FIRST},cpu:{SECOND}-{SECOND}",
                                           "--tensor-parallel", 2],
    "one device of two threads": [f"cpu:{FIRST}-{SECOND}"],
}
STREAMS = (1, 8)


def measure(devices, options, home):
    with Server("--devices", *devices, "--set", "devices.isolation=none",
                TANDEM_HOME=home) as server:
        for streams in STREAMS:
            status, out, err = run_tandem(
                "bench", "serve", "--address", server.address, "--streams", streams,
                "--prompt-tokens", options.prompt_tokens, "--max-tokens", 64,
                "--seconds", options.seconds, "--json", timeout=300)
            if status != 0:
                raise SystemExit(err)
            yield streams, json.loads(out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--json")
    options = parser.parse_args()
    rates = {(way, streams): [] for way in WAYS for streams in STREAMS}
    with tempfile.TemporaryDirectory() as folder:
        home = fresh_home(folder)
        for round_ in range(options.rounds):
            for way, devices in WAYS.items():
                for streams, run in measure(devices, options, home):
                    rates[way, streams].append(run["output_tokens_per_s"])
                    print(f"   {round_ + 1}: {way}, {streams} streams: "
                          f"{run['output_tokens_per_s']:.0f} tokens/s", flush=True)
    first = next(iter(WAYS))
    rows = []
    for streams in STREAMS:
        alone = statistics.median(rates[first, streams])
        for way in WAYS:
            median = statistics.median(rates[way, streams])
            rows.append({"way": way, "streams": streams, "tokens_per_s": round(median, 1),
                         "times_one_thread": round(median / alone, 2)})
            print(f"{way}, {streams} streams: {median:.0f} tokens/s, "
                  f"{median / alone:.2f} times one thread")
    if options.json:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True,
                                text=True, check=False).stdout.strip()
        cpu = next(line.split(": ")[1] for line in open("/proc/cpuinfo", encoding="utf-8")
                   if line.startswith("model name")).strip()
        pathlib.Path(options.json).write_text(json.dumps(
            {"commit": commit, "machine": cpu, "command": " ".join(["python", *sys.argv]),
             "rounds": options.rounds, "rows": rows}, indent=1) + "\n", encoding="utf-8")


main()
