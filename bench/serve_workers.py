"""Two worker processes with one core each beside one process with two threads: 16 streams through the
gateway, alternating, as a ratio of medians.

    build/venv/bin/python bench/serve_workers.py [--rounds 5] [--seconds 6] [--json FILE]
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
BOTH, APART = f"cpu:{FIRST}-{SECOND}", f"cpu:{FIRST}-{FIRST},cpu:{SECOND}-{SECOND}"
WAYS = {
    "one process, one device of two threads": (BOTH, "none"),
    "one worker, one device of two threads": (BOTH, "process"),
    "two workers, a device of one thread each": (APART, "process"),
    "one process, two devices of one thread each": (APART, "none"),
}


def measure(devices, isolation, options, home):
    with Server("--devices", devices, "--set", f"devices.isolation={isolation}",
                TANDEM_HOME=home) as server:
        status, out, err = run_tandem(
            "bench", "serve", "--address", server.address, "--streams", options.streams,
            "--prompt-tokens", options.prompt_tokens, "--max-tokens", 64,
            "--seconds", options.seconds, "--json", timeout=300)
        if status != 0:
            raise SystemExit(err)
        return json.loads(out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--json")
    options = parser.parse_args()
    runs = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        home = fresh_home(folder)
        for round_ in range(options.rounds):
            for way, (devices, isolation) in WAYS.items():
                runs[way].append(measure(devices, isolation, options, home))
                print(f"   {round_ + 1}: {way}: {runs[way][-1]['output_tokens_per_s']:.0f} tokens/s",
                      flush=True)

    def median(way, number):
        return statistics.median(number(run) for run in runs[way])

    first = next(iter(WAYS))
    base = median(first, lambda run: run["output_tokens_per_s"])
    result = {
        "command": " ".join(["bench/serve_workers.py", *sys.argv[1:]]),
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], text=True,
                                 capture_output=True).stdout.strip(),
        "streams": options.streams, "prompt_tokens": options.prompt_tokens,
        "ways": {way: {
            "tokens_per_s": round(median(way, lambda run: run["output_tokens_per_s"]), 1),
            "of_the_first": round(median(way, lambda run: run["output_tokens_per_s"]) / base, 3),
            "first_token_ms": round(median(way, lambda run: run["ttft_ms"]["p50"]), 1),
            "between_tokens_ms": round(median(way, lambda run: run["inter_token_ms"]["p50"]), 2),
            "between_tokens_p99_ms": round(median(way, lambda run: run["inter_token_ms"]["p99"]), 2),
        } for way in WAYS}}
    print(json.dumps(result, indent=1))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
