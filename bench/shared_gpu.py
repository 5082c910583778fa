"""One GPU that serves and trains at once: eight clients ask again and again while a full fine-tuning
job and a LoRA job run; every text must be the one it was before, and both jobs succeed. The model is
the tiny one of the tests: this is about what goes on beside what, not about speed.

    TANDEM_BINARY=build/tandem python3 bench/shared_gpu.py [--device cuda:0] [--json FILE]
"""
import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = os.environ.get("TANDEM_BINARY", str(ROOT / "build" / "tandem"))
sys.path.insert(0, str(ROOT / "tests"))
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

TOPICS = ["lighthouse", "river", "clock", "lamp", "mountain", "kitchen", "garden", "ship"]


def call(address, path, body=None, kind="application/json"):
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, data, {"Content-Type": kind}),
                                timeout=120) as answer:
        return json.load(answer)


def story(address, model, topic):
    return call(address, "/v1/chat/completions", {
        "model": model, "max_tokens": 60, "temperature": 0.8, "seed": 11,
        "messages": [{"role": "user", "content": f"Tell me of a {topic}."}]}
    )["choices"][0]["message"]["content"]


def upload(address, lines):
    mark = "oneboundary"
    body = (f"--{mark}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n"
            f"--{mark}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"facts.jsonl\"\r\n"
            f"Content-Type: application/jsonl\r\n\r\n{lines}\r\n--{mark}--\r\n").encode()
    return call(address, "/v1/files", body, f"multipart/form-data; boundary={mark}")["id"]


def train(address, model, file, method):
    job = call(address, "/v1/fine_tuning/jobs", {
        "model": model, "training_file": file, "seed": 5,
        "method": {"type": "supervised", "supervised": {"hyperparameters": {
            "n_epochs": 1, "batch_size": 8}}},
        "tandem": {"method": method, "slots": 4, "learning_rate": 1e-5}})["id"]
    while (now := call(address, f"/v1/fine_tuning/jobs/{job}"))["status"] not in (
            "succeeded", "failed", "cancelled"):
        time.sleep(0.05)
    return now


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--json", type=pathlib.Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = make_tiny_chat_model(pathlib.Path(folder) / "tiny")
        server = subprocess.Popen(
            [BINARY, "up", "--model", str(path), "--set", f"devices.list={asked.device}", "--set",
             "server.port=0"], stdout=subprocess.PIPE, text=True)
        try:
            for line in server.stdout:
                if ready := re.match(r"ready (\S+) in", line):
                    break
            else:
                raise SystemExit("the server did not come up")
            threading.Thread(target=lambda: [None for _ in server.stdout], daemon=True).start()
            address = ready[1]
            model = call(address, "/v1/models")["data"][0]["id"]
            expected = {topic: story(address, model, topic) for topic in TOPICS}
            told, wrong, enough = [0], [0], threading.Event()

            def ask(topic):
                while not enough.is_set():
                    wrong[0] += story(address, model, topic) != expected[topic]
                    told[0] += 1
            clients = [threading.Thread(target=ask, args=(topic,)) for topic in TOPICS]
            for client in clients:
                client.start()
            lines = "\n".join(json.dumps({"messages": [
                {"role": "user", "content": f"Fact {i}?"},
                {"role": "assistant", "content": f"Number {i * 37 % 101} of {TOPICS[i % 8]}."}]})
                for i in range(800))
            file = upload(address, lines)
            jobs = {method: train(address, model, file, method)["status"]
                    for method in ("full", "lora")}
            enough.set()
            for client in clients:
                client.join()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    found = {"device": asked.device, "texts": told[0], "wrong": wrong[0], "jobs": jobs}
    print(json.dumps(found))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(0 if wrong[0] == 0 and set(jobs.values()) == {"succeeded"} else 1)


if __name__ == "__main__":
    main()
