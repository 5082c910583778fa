"""Heads that share a PostgreSQL store, each with the lines it says and when it said them; and a
fine-tuning job whose outcome is compared from one of them to the next."""
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import threading
import time

import httpx

from support.job_events import wait_for_end
from support.tandem_server import BINARY, environment

SERVER = os.environ.get("TANDEM_TEST_POSTGRES")
EXAMPLES = 240
MODEL = "tiny-chat"  # as its folder is called


def psql(database, statement):
    """The first value that a statement gives."""
    done = subprocess.run(["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement,
                           f"{SERVER}/{database}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def new_database():
    name = "flow" + secrets.token_hex(6)
    psql("postgres", f"CREATE DATABASE {name}")
    return name


class Lines:
    """A process whose lines are kept with the time they came."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self.news = threading.Condition()
        self.readers = [threading.Thread(target=self._read, args=(pipe,), daemon=True)
                        for pipe in (self.process.stdout, self.process.stderr)]
        for reader in self.readers:
            reader.start()

    def _read(self, pipe):
        for line in pipe:
            with self.news:
                self.lines.append((time.monotonic(), line.rstrip("\n")))
                self.news.notify_all()

    def wait_line(self, pattern, timeout=60):
        """(when, match) of the first line with the pattern."""
        end = time.monotonic() + timeout
        with self.news:
            while True:
                for at, line in self.lines:
                    if found := re.search(pattern, line):
                        return at, found
                left = end - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and
                                 not any(r.is_alive() for r in self.readers)):
                    raise RuntimeError(f"no line with '{pattern}':\n" + self.text())
                self.news.wait(min(left, 0.5))

    def text(self):
        return "\n".join(line for _, line in self.lines)

    def ready(self):
        self.address = self.wait_line(r"^ready (\S+) in")[1].group(1)
        return self

    def send(self, what):
        self.process.send_signal(what)

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(how)
        status = self.process.wait(40)
        for reader in self.readers:
            reader.join()
        return status


class Head(Lines):
    """A `tandem up` of one device over a database of the test server."""

    def __init__(self, home, database, model, *options, cluster=None):
        self.cluster = cluster  # where nodes join it
        if cluster:
            options += ("--set", f"cluster.listen={cluster}")
        super().__init__(subprocess.Popen(
            [str(BINARY), "up", "--port", "0", "--model", str(model), "--devices", "cpu:0-0",
             *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(TANDEM_HOME=str(home), TANDEM_STORE_URL=f"{SERVER}/{database}")))


def write_data(path):
    with path.open("w") as file:
        for i in range(EXAMPLES):
            said = " ".join(str(i * k % 97) for k in range(1, 3 + i % 9))
            file.write(json.dumps({"messages": [
                {"role": "user", "content": said},
                {"role": "assistant", "content": said[::-1]}]}) + "\n")
    return path


def upload(address, data):
    with data.open("rb") as file:
        return httpx.post(address + "/v1/files", data={"purpose": "fine-tune"},
                          files={"file": ("data.jsonl", file)}, timeout=30).json()["id"]


def submit(address, file, key, epochs=2, **own):
    model = httpx.get(address + "/v1/models").json()["data"][0]["id"]
    body = {"model": model, "training_file": file, "seed": 5,
            "tandem": {"slots": 2, "checkpoint_every_steps": 3, "learning_rate": 1e-3,
                       "method": "full"} | own,
            "method": {"type": "supervised", "supervised": {"hyperparameters": {
                "n_epochs": epochs, "batch_size": 4}}}}
    answer = httpx.post(address + "/v1/fine_tuning/jobs", json=body,
                        headers={"idempotency-key": key}, timeout=30)
    return answer.raise_for_status().json()["id"]


def outcome(address, job):
    """The hash of the parameters of a job that succeeded."""
    wait_for_end(address, job)
    done = httpx.get(f"{address}/v1/fine_tuning/jobs/{job}").json()
    if done["status"] != "succeeded":
        raise RuntimeError(f"{done['status']}: {done['error']}")
    listed = httpx.get(f"{address}/v1/fine_tuning/jobs/{job}/events?limit=100").json()["data"]
    return next(found.group(1) for event in listed
                if (found := re.search(r"SHA-256 ([0-9a-f]{64})", event["message"])))


def stream(address, n, tokens=200):
    """The text of an answer, or None when it broke off."""
    text = ""
    try:
        with httpx.stream("POST", address + "/v1/chat/completions", timeout=60, json={
                "model": MODEL, "stream": True, "temperature": 0, "max_tokens": tokens,
                "messages": [{"role": "user", "content": f"count to {n}"}]}) as answer:
            if answer.status_code in (400, 404):  # not what a head that comes or goes says
                raise RuntimeError(answer.read().decode())
            for line in answer.iter_lines():
                if line == "data: [DONE]":
                    return text
                if line.startswith("data: {"):
                    choices = json.loads(line[6:]).get("choices") or [{}]
                    text += choices[0].get("delta", {}).get("content") or ""
    except httpx.HTTPError:
        return None
    return None
