"""Streams kept up on a server while its devices come and go, and the processes behind them."""
import pathlib
import re
import signal
import subprocess
import threading
import time

import openai

from support.tandem_server import BINARY, environment

TOPICS = ["lighthouse", "river", "clock", "lamp", "mountain", "kitchen", "garden", "ship"]


def story(client, model, topic, heard=None):
    """One streamed answer; `heard` is called with each piece."""
    stream = client.chat.completions.create(
        model=model, temperature=0.8, seed=11, max_tokens=80, stream=True,
        messages=[{"role": "user", "content": f"Tell me a story about a {topic}."}])
    text = ""
    for chunk in stream:
        piece = chunk.choices[0].delta.content if chunk.choices else None
        if piece:
            text += piece
            if heard:
                heard()
    return text


def client_of(server):
    return openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)


class Stream(threading.Thread):
    """Asks for its story again and again until told to stop; keeps its longest pauses."""

    def __init__(self, server, model, topic, expected):
        super().__init__(daemon=True)
        self.client, self.model, self.topic, self.expected = client_of(server), model, topic, expected
        self.told, self.wrong, self.gaps = 0, [], []
        self.when = []  # each gap ended, Unix seconds
        self.problem, self.enough = None, False

    def run(self):
        while not self.enough and self.problem is None:
            self.last = time.monotonic()
            try:
                text = story(self.client, self.model, self.topic, self.heard)
            except Exception as why:  # told at the end
                self.problem = why
                return
            if text != self.expected:
                self.wrong.append(text)
            self.told += 1

    def heard(self):
        now = time.monotonic()
        self.gaps.append(now - self.last)
        self.when.append(time.time())
        self.last = now


class Streams:
    """Eight of them, as a context; `problems` and `wrong` are for the checks after it."""

    def __init__(self, server, model, alone):
        self.all = [Stream(server, model, topic, alone[topic]) for topic in TOPICS]

    def __enter__(self):
        for stream in self.all:
            stream.start()
        return self

    def __exit__(self, *ignored):
        for stream in self.all:
            stream.enough = True
        for stream in self.all:
            stream.join(180)

    def told(self):
        return sum(stream.told for stream in self.all)

    def problems(self):
        return [f"{s.topic}: {s.problem!r}" for s in self.all if s.problem] + [
            f"{s.topic}: still going" for s in self.all if s.is_alive()]

    def wrong(self):
        return sum(len(stream.wrong) for stream in self.all)

    def gap_table(self):
        rows = ["   stream       answers   p50 ms   p99 ms   longest ms"]
        for stream in self.all:
            gaps = sorted(1000 * gap for gap in stream.gaps) or [0.0]
            rows.append(f"   {stream.topic:<12}{stream.told:>8}{gaps[len(gaps) // 2]:>9.1f}"
                        f"{gaps[int(len(gaps) * 0.99)]:>9.1f}{gaps[-1]:>13.1f}")
        return "\n".join(rows)


def workers_of(pid):
    """The worker processes of this process: {device: pid}."""
    found = {}
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
            words = (status.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if parent == pid and words[:2] == [b"tandem", b"worker"]:
            found[words[2].decode()] = int(status.parent.name)
    return found


def zombies_of(pid):
    found = 0
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        found += fields[0] == "Z" and int(fields[1]) == pid
    return found


class Program:
    """A `tandem` in the foreground, with the lines it says."""

    def __init__(self, *arguments, binary=BINARY, prefix=(), **extra):
        self.process = subprocess.Popen(
            [*prefix, str(binary), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=environment(**extra))
        self.lines, self.errors = [], []
        self._said = threading.Condition()
        self._readers = [threading.Thread(target=self._read, args=one, daemon=True) for one in
                         ((self.process.stdout, self.lines), (self.process.stderr, self.errors))]
        for reader in self._readers:
            reader.start()

    def _read(self, source, into):
        for line in source:
            with self._said:
                into.append(line.rstrip("\n"))
                self._said.notify_all()
        with self._said:
            self._said.notify_all()

    def says(self, pattern, count=1, deadline_s=30):
        """The match of the count-th line with this pattern on its output; None: it did not come."""
        def matches():
            return [m for m in (re.match(pattern, line) for line in list(self.lines)) if m]
        with self._said:
            self._said.wait_for(lambda: len(matches()) >= count or not any(
                reader.is_alive() for reader in self._readers), deadline_s)
        found = matches()
        return found[count - 1] if len(found) >= count else None

    def end(self, how=signal.SIGTERM, timeout=60):
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.wait(timeout)

    def wait(self, timeout=60):
        status = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(10)
        return status


class Node(Program):
    """A `tandem join`."""

    def __init__(self, address, *arguments, **extra):
        super().__init__("join", address, *arguments, **extra)
