"""tandem beside llama.cpp in one run: the same GGUF file, the same threads, alternating.

    build/venv/bin/python -m pip install llama-cpp-python
    build/venv/bin/python bench/compare_llama_cpp.py [--rounds 5] [--json FILE]

tandem is measured from outside, through its HTTP gateway; llama.cpp in this process, by its own calls
(llama_decode), with nothing around it. What is quoted is the ratio of medians.
"""
import argparse
import asyncio
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))
from support.tandem_server import QUICKSTART, Server  # noqa: E402

import numpy  # noqa: E402
import llama_cpp  # noqa: E402

PROMPT = 512
DECODE = 128
STREAMS = 16
STREAM_PROMPT = 16
STREAM_TOKENS = 64


class Peer:
    """llama.cpp, driven as its own batched bench does."""

    def __init__(self, path, threads):
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params())
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = 8192
        parameters.n_batch = parameters.n_ubatch = 512
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.n_seq_max = STREAMS
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(512, 0, STREAMS)

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def decode(self, rows):
        """rows: (token, position, sequence, wants logits)"""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, logits) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, sequence, logits
        assert llama_cpp.llama_decode(self.context, batch) == 0

    def best(self, row):
        logits = llama_cpp.llama_get_logits_ith(self.context, row)
        return int(numpy.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())

    def prompt(self, ids):
        self.clear()
        began = time.perf_counter()
        self.decode([(t, p, 0, p == len(ids) - 1) for p, t in enumerate(ids)])
        self.best(len(ids) - 1)
        return len(ids) / (time.perf_counter() - began)

    def one_stream(self, ids):
        self.clear()
        self.decode([(t, p, 0, p == len(ids) - 1) for p, t in enumerate(ids)])
        token = self.best(len(ids) - 1)
        began = time.perf_counter()
        for i in range(DECODE):
            self.decode([(token, len(ids) + i, 0, True)])
            token = self.best(0)
        return DECODE / (time.perf_counter() - began)

    def many_streams(self, ids):
        self.clear()
        tokens = []
        for s in range(STREAMS):
            self.decode([(t, p, s, p == len(ids) - 1) for p, t in enumerate(ids)])
            tokens.append(self.best(len(ids) - 1))
        began = time.perf_counter()
        for i in range(STREAM_TOKENS):
            self.decode([(tokens[s], len(ids) + i, s, True) for s in range(STREAMS)])
            tokens = [self.best(s) for s in range(STREAMS)]
        return STREAMS * STREAM_TOKENS / (time.perf_counter() - began)


class Ours:
    def __init__(self, server):
        self.host, self.port = server.host_port
        self.model = json.loads(server.get("/v1/models"))["data"][0]["id"]

    async def stream(self, ids, tokens):
        """When each event came; the first is when the request was sent."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        body = json.dumps({"model": self.model, "prompt": ids, "max_tokens": tokens, "stream": True,
                           "temperature": 0, "ignore_eos": True}).encode()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: "
                     + str(len(body)).encode() + b"\r\n\r\n" + body)
        times = [time.perf_counter()]
        while not (line := await reader.readline()).startswith(b"data: [DONE]"):
            if not line:
                raise RuntimeError("the stream broke off")
            if line.startswith(b"data: "):
                times.append(time.perf_counter())
        writer.close()
        return times

    def prompt(self, ids):
        times = asyncio.run(self.stream(ids, 1))
        return len(ids) / (times[1] - times[0])

    def one_stream(self, ids):
        times = asyncio.run(self.stream(ids, DECODE + 1))
        return DECODE / (times[-1] - times[1])

    def many_streams(self, ids):
        async def all_streams():
            return await asyncio.gather(*(self.stream([s + 100] + ids[1:], STREAM_TOKENS + 1)
                                          for s in range(STREAMS)))
        streams = asyncio.run(all_streams())
        began = max(times[1] for times in streams)
        ended = max(times[-1] for times in streams)
        # Half a character is held back, so there may be fewer events than tokens.
        after = sum(sum(t > began for t in times[1:]) / len(times[1:]) for times in streams)
        return after * (STREAM_TOKENS + 1) / (ended - began)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json")
    options = parser.parse_args()
    rng = numpy.random.default_rng(1)
    figures = {}
    peer = Peer(QUICKSTART, options.threads)
    with Server("--set", "serve.prefix_cache=false", "--set",
                f"devices.threads_per_device={options.threads}") as server:
        ours = Ours(server)
        for _ in range(options.rounds):
            prompt = [int(t) for t in rng.integers(1000, 40000, PROMPT)]
            for what, ids in [("prompt", prompt), ("one_stream", prompt[:64]),
                              ("many_streams", prompt[:STREAM_PROMPT])]:
                for name, side in [("tandem", ours), ("llama.cpp", peer)]:
                    figures.setdefault(what, {}).setdefault(name, []).append(
                        getattr(side, what)(ids))
        resident = server.resident_bytes()
    for what, sides in figures.items():
        a, b = (statistics.median(sides[name]) for name in ("tandem", "llama.cpp"))
        print(f"{what:13} tandem {a:8.1f} tokens/s   llama.cpp {b:8.1f} tokens/s   ratio {a / b:.2f}"
              f"   best {max(sides['tandem']):.1f} / {max(sides['llama.cpp']):.1f}")
    print(f"resident {resident / 2**20:.0f} MiB, file {QUICKSTART.stat().st_size / 2**20:.0f} MiB, "
          f"ready in {server.ready_ms} ms, load {os.getloadavg()[0]:.1f}")
    if options.json:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True,
                                text=True, cwd=pathlib.Path(__file__).parent).stdout.strip()
        pathlib.Path(options.json).write_text(json.dumps(
            {"commit": commit, "command": " ".join(sys.argv), "threads": options.threads,
             "peer": f"llama-cpp-python {llama_cpp.__version__}", "figures": figures,
             "resident_bytes": resident, "ready_ms": server.ready_ms}, indent=1) + "\n")


if __name__ == "__main__":
    main()
