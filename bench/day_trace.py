"""A day's load squeezed into minutes, on two CPU devices, three ways: serving alone; devices that
move between serving and a full fine-tuning job (latency_first); and the best static split of the
two (one serves, one trains). Writes figures, and a picture of who held each device.

    build/venv/bin/python bench/day_trace.py [--minutes 10] [--json FILE] [--picture FILE.svg]

The load is a seeded Poisson process whose rate follows a day (quiet night, two peaks) with bursts on
top; every way gets the same arrivals. What serving left is (1 - its busy share when alone) of two
devices; training's capacity is what the job reaches on both without any request.
"""
import argparse
import asyncio
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))
import openai  # noqa: E402
from support.tandem_server import QUICKSTART, Server, fresh_home  # noqa: E402

DEVICES = ["cpu:0-0", "cpu:1-1"]
PROMPT, ANSWER = 48, 24
BURSTS = 6  # a day


def arrivals(minutes, peak_per_s, seed=3):
    """Seconds from the start, and whether a burst made it."""
    rng = random.Random(seed)
    length = minutes * 60
    bursts = sorted(rng.uniform(0.05, 0.95) * length for _ in range(BURSTS))
    times, at = [], 0.0
    while at < length:
        day = at / length * 2 * math.pi
        rate = peak_per_s * (0.08 + 0.46 * (1 - math.cos(day)) * (0.75 + 0.25 * math.cos(2 * day)))
        if any(0 <= at - burst < length / 60 for burst in bursts):
            rate += 1.5 * peak_per_s
        at += rng.expovariate(max(rate, 1e-3))
        times.append(at)
    return [t for t in times if t < length]


async def ask(server, model, ids, when, began, into):
    await asyncio.sleep(max(0.0, began + when - time.monotonic()))
    host, port = server.host_port
    sent = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection(host, port)
        body = json.dumps({"model": model, "prompt": ids, "max_tokens": ANSWER, "stream": True,
                           "temperature": 0, "ignore_eos": True}).encode()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: "
                     + str(len(body)).encode() + b"\r\n\r\n" + body)
        first = last = None
        while not (line := await reader.readline()).startswith(b"data: [DONE]"):
            if not line:
                raise ConnectionError("the stream broke off")
            if line.startswith(b"data: ") and b'"text"' in line:
                last = time.monotonic()
                first = first or last
        writer.close()
        into.append((when, first - sent, (last - first) / max(1, ANSWER - 1)))
    except (OSError, TypeError) as why:
        into.append((when, None, repr(why)))


async def day(server, model, times):
    rng = random.Random(5)
    answers = []
    began = time.monotonic() + 0.5
    prompts = [[rng.randrange(1000, 40000) for _ in range(PROMPT)] for _ in times]
    await asyncio.gather(*(ask(server, model, ids, when, began, answers)
                           for ids, when in zip(prompts, times)))
    return answers, time.monotonic() - began


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def leases(server):
    return json.loads(server.get("/admin/leases"))


def trained_tokens(server):
    return sum(job["trained_tokens"] for job in leases(server)["jobs"])


def start_job(server, folder, devices=len(DEVICES)):
    client = openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)
    data = pathlib.Path(folder) / "data.jsonl"
    data.write_text("".join(json.dumps({"text": " ".join(
        str((line * 61 + i * 7) % 997) for i in range(60))}) + "\n" for line in range(64)))
    file = client.files.create(file=data.open("rb"), purpose="fine-tune").id
    client.fine_tuning.jobs.create(
        model=client.models.list().data[0].id, training_file=file, seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": {
            "n_epochs": 50, "batch_size": 16}}},
        extra_body={"tandem": {"method": "full", "checkpoint_every_steps": 1000000}})
    if not server.wait_until(lambda: sum(d["resident"] for d in leases(server)["devices"])
                             == devices and trained_tokens(server) > 0, 180):
        raise RuntimeError(f"the job did not start: {leases(server)}")


def training_rate(server, seconds):
    """Tokens a second over at least so long, while nobody asks; from count to count, because rounds
    are counted whole."""
    def next_count(last):
        server.wait_until(lambda: trained_tokens(server) > last, 180)
        return trained_tokens(server), time.monotonic()

    first, began = next_count(next_count(trained_tokens(server))[0])
    count, now = first, began
    while now - began < seconds:
        count, now = next_count(count)
    return (count - first) / (now - began)


def one_way(name, settings, times, with_job, folder):
    home = pathlib.Path(folder) / name
    home.mkdir()
    with Server("--set", f"devices.list={json.dumps(DEVICES)}",
                "--set", "devices.isolation=none", "--set",
                "devices.memory_fraction=0.6", "--set", "model.kv_memory=256MiB", "--set",
                "serve.prefix_cache=false", "--set", "serve.max_queued=4096",
                *(part for setting in settings for part in ("--set", setting)),
                model=QUICKSTART, TANDEM_HOME=fresh_home(home)) as server:
        model = json.loads(server.get("/v1/models"))["data"][0]["id"]
        if with_job:
            start_job(server, home)
        tokens, busy = trained_tokens(server), server.metric("tandem_device_busy_seconds_total")
        began_unix = time.time()
        answers, wall = asyncio.run(day(server, model, times))
        trained = trained_tokens(server) - tokens
        busy = server.metric("tandem_device_busy_seconds_total") - busy
        history = json.loads(server.get("/admin/leases/history?limit=1000"))["data"]
        capacity = 0.0
        if with_job and name == "tandem":
            capacity = training_rate(server, 60)
    firsts = [first for _, first, _ in answers if first is not None]
    figures = {"requests": len(answers), "failed": sum(f is None for _, f, _ in answers),
               "wall_s": wall, "ttft_p50_s": quantile(firsts, 0.5),
               "ttft_p99_s": quantile(firsts, 0.99), "trained_tokens": trained,
               "trained_tokens_per_s": trained / wall, "serving_busy_s": busy,
               "moves": sum(e["kind"] == "move" for e in history)}
    if capacity:
        figures["training_capacity_tokens_per_s"] = capacity
    print(f"{name:12} {figures['requests']} requests, {figures['failed']} failed, first token "
          f"p50 {figures['ttft_p50_s'] * 1e3:.0f} ms p99 {figures['ttft_p99_s'] * 1e3:.0f} ms, "
          f"{figures['trained_tokens_per_s']:.1f} trained tokens/s, {figures['moves']} moves",
          flush=True)
    return figures, [e for e in reversed(history) if e["kind"] == "move"], answers, began_unix


COLOURS = {"serve": "#2f6fde", "shared": "#8a63d2", "train": "#e08a1e", "idle": "#c4c7cc"}


def picture(path, minutes, moves, answers, began_unix, target_s):
    """Who held each device, and each request's time to first token, as SVG."""
    left, width, length = 90, 1000, minutes * 60
    x = lambda seconds: left + width * min(max(seconds / length, 0), 1)  # noqa: E731
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1120 330" '
           'font-family="sans-serif" font-size="13">',
           '<rect width="1120" height="330" fill="#fff"/>']
    for row, device in enumerate(DEVICES):
        y = 20 + row * 46
        out.append(f'<text x="12" y="{y + 22}">{device}</text>')
        changes = [(e["time_ms"] / 1e3 - began_unix, e["from"], e["to"]) for e in moves
                   if e["device"] == device]
        role, since = (changes[0][1] if changes else "serve"), 0.0
        for at, before, after in changes + [(length, None, None)]:
            if at > 0:
                out.append(f'<rect x="{x(since):.2f}" y="{y}" width="{x(at) - x(since):.2f}" '
                           f'height="34" fill="{COLOURS[role]}"/>')
                since = at
            role = after or role
    most = max([target_s * 1.5] + [first for _, first, _ in answers if first])
    height = lambda s: 290 - 160 * s / most  # noqa: E731
    out.append(f'<line x1="{left}" x2="{left + width}" y1="{height(target_s):.1f}" '
               f'y2="{height(target_s):.1f}" stroke="#c33" stroke-dasharray="4 3"/>'
               f'<text x="12" y="{height(target_s) + 4:.1f}">{target_s * 1e3:.0f} ms</text>')
    for when, first, _ in answers:
        if first is not None:
            out.append(f'<circle cx="{x(when):.1f}" cy="{height(first):.1f}" r="1.6" '
                       'fill="#2f6fde" fill-opacity=".55"/>')
    for part in range(0, 25, 4):
        out.append(f'<text x="{left + width * part / 24:.0f}" y="312" text-anchor="middle">'
                   f'{part:02d}:00</text>')
    for i, (role, colour) in enumerate(COLOURS.items()):
        out.append(f'<rect x="{left + i * 110}" y="112" width="12" height="12" fill="{colour}"/>'
                   f'<text x="{left + 18 + i * 110}" y="123">{role}</text>')
    out.append(f'<text x="{left + 460}" y="123">dots: time to first token of each request</text>')
    path.write_text("\n".join(out + ["</svg>"]) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--peak", type=float, default=2.5, help="requests a second at a peak")
    parser.add_argument("--target-ms", type=int, default=500)
    parser.add_argument("--json")
    parser.add_argument("--picture")
    options = parser.parse_args()
    times = arrivals(options.minutes, options.peak)
    target = f"serve.ttft_target_ms={options.target_ms}"
    ways = {}
    with tempfile.TemporaryDirectory() as folder:
        ways["serve_only"], _, _, _ = one_way("serve_only", [target], times, False, folder)
        ways["tandem"], moves, answers, began = one_way("tandem", [target], times, True, folder)
        ways["static"], _, _, _ = one_way(
            "static", [target, "share.policy=fixed", "share.min_serve_devices=1"], times, True,
            folder)
    alone, ours, split = (ways[name] for name in ("serve_only", "tandem", "static"))
    left = 1 - alone["serving_busy_s"] / (len(DEVICES) * alone["wall_s"])
    share = ours["trained_tokens_per_s"] / (left * ours["training_capacity_tokens_per_s"])
    ratios = {"ttft_p99_against_serve_only": ours["ttft_p99_s"] / alone["ttft_p99_s"],
              "share_of_capacity_that_serving_left": share,
              "ttft_p99_against_static": ours["ttft_p99_s"] / split["ttft_p99_s"],
              "trained_tokens_against_static":
                  ours["trained_tokens_per_s"] / split["trained_tokens_per_s"]}
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    if options.picture:
        picture(pathlib.Path(options.picture), options.minutes, moves, answers, began,
                options.target_ms / 1e3)
    if options.json:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True,
                                text=True, cwd=pathlib.Path(__file__).parent).stdout.strip()
        pathlib.Path(options.json).write_text(json.dumps(
            {"commit": commit, "command": " ".join(sys.argv), "load": os.getloadavg()[0],
             "ways": ways, "ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
