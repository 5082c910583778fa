"""A cluster over machines of their own (support/network.py): two heads, two nodes, a PostgreSQL
server; and streams that ask whoever leads, with the longest pause between two tokens."""
import os
import pathlib
import re
import subprocess
import threading
import time

import httpx

from support.cluster import Program
from support.heads import MODEL, Lines
from support.network import Machine
from support.tandem_server import BINARY, environment

KEY = "an-admin-key-of-this-test"
HEADERS = {"authorization": f"Bearer {KEY}"}
CLUSTER_PORT, HTTP_PORT = 7000, 8000


RUNNING = []  # every process of the cluster
PROGRAMS = []  # of these, heads and nodes


def kill_all():
    """After a test that broke off: nothing stays behind."""
    for process in RUNNING:
        if process.poll() is None:
            process.kill()


def print_lines():
    """What heads and nodes said, for whoever looks at a test that broke off."""
    for program in PROGRAMS:
        print(f"--- {program.machine.name}")
        for line in program.lines + getattr(program, "errors", []):
            print("   ", line if isinstance(line, str) else line[1])


def as_postgres(*command):
    return (["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
            if os.geteuid() == 0 else list(command))


class Database:
    """A server on a machine of its own, ready when its log says so."""

    def __init__(self, machine, folder):
        programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        folder.mkdir()
        data = folder / "data"
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "postgres", str(folder)], check=True)
        subprocess.run(as_postgres(str(programs / "initdb"), "-D", str(data), "-U", "tandem", "-A",
                                   "trust", "--no-sync", "-E", "UTF8", "--locale=C"),
                       check=True, capture_output=True, cwd="/")
        with (data / "pg_hba.conf").open("a") as access:
            access.write("host all all 10.77.0.0/24 trust\n")
        self.url = f"postgresql://tandem@{machine.address}:5432/postgres"
        self.process = subprocess.Popen(
            [*machine.prefix, *as_postgres(str(programs / "postgres"), "-D", str(data), "-k",
                                           str(folder), "-c", f"listen_addresses={machine.address}",
                                           "-c", "fsync=off")],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/")
        RUNNING.append(self.process)
        for line in self.process.stdout:
            if "ready to accept connections" in line:
                break
        else:
            raise RuntimeError("the database server did not start")
        self.rest = threading.Thread(target=self.process.stdout.read, daemon=True)
        self.rest.start()

    def ask(self, statement):
        done = subprocess.run(["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url],
                              capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def end(self):
        self.process.send_signal(2)
        self.process.wait(20)


class Head(Lines):
    """`tandem up` on a machine."""

    def __init__(self, machine, database, folder, model):
        self.machine = machine
        self.name = machine.name
        self.address = f"http://{machine.address}:{HTTP_PORT}"
        self.cluster = f"{machine.address}:{CLUSTER_PORT}"
        keys = folder / "admin-key"
        keys.write_text(KEY + "\n")
        super().__init__(subprocess.Popen(
            [*machine.prefix, str(BINARY), "up", "--host", machine.address, "--port",
             str(HTTP_PORT), "--model", str(model), "--devices", "cpu:0-0,cpu:1-1", "--set",
             f"cluster.listen={self.cluster}", "--set", f"cluster.secret_file={folder / 'secret'}",
             "--set", f"server.admin_key_file={keys}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(TANDEM_HOME=str(folder / "home"), TANDEM_STORE_URL=database.url)))
        RUNNING.append(self.process)
        PROGRAMS.append(self)

    def admin(self, path):
        return httpx.get(self.address + path, headers=HEADERS, timeout=30).json()

    def devices(self):
        try:
            listed = self.admin("/admin/cluster")["devices"]
        except (httpx.HTTPError, ValueError):
            return set()
        return {one["name"] for one in listed if one["ready"]}

    def history(self):
        return self.admin("/admin/leases/history?limit=1000")["data"]


class Node(Program):
    """`tandem join` on a machine, with the addresses of both heads."""

    def __init__(self, machine, heads, folder):
        self.machine = machine
        super().__init__("join", ",".join(heads), "--devices", "cpu:1-1", "--name", machine.name,
                         "--secret-file", folder / "secret", prefix=machine.prefix,
                         TANDEM_HOME=str(folder / "home"))
        PROGRAMS.append(self)
        RUNNING.append(self.process)


class Stream(threading.Thread):
    """Asks whoever leads, again and again; keeps when each piece of text came."""

    def __init__(self, leader, n):
        super().__init__(daemon=True)
        self.leader, self.n = leader, n
        self.times, self.texts, self.broken = [], [], 0
        self.enough = False

    def run(self):
        while not self.enough:
            text = ""
            try:
                with httpx.stream("POST", self.leader() + "/v1/chat/completions", timeout=30, json={
                        "model": MODEL, "stream": True, "temperature": 0, "max_tokens": 200,
                        "messages": [{"role": "user", "content": f"count to {self.n}"}]}) as answer:
                    for line in answer.iter_lines():
                        if found := re.search(r'"content":("(?:[^"\\]|\\.)*")', line):
                            text += found.group(1)
                            self.times.append(time.monotonic())
                        if line == "data: [DONE]":
                            self.texts.append(text)
            except httpx.HTTPError:
                self.broken += 1

    def longest_gap(self, since, until):
        times = [since, *(t for t in list(self.times) if since < t < until), until]
        return max(b - a for a, b in zip(times, times[1:]))


class Streams:
    def __init__(self, leader, count=4):
        self.all = [Stream(leader, n) for n in range(count)]

    def __enter__(self):
        for one in self.all:
            one.start()
        return self

    def __exit__(self, *ignored):
        for one in self.all:
            one.enough = True
        for one in self.all:
            one.join(60)

    def longest_gap(self, since, until):
        return max(one.longest_gap(since, until) for one in self.all)

    def broken(self):
        return sum(one.broken for one in self.all)

    def differing(self):
        """Of the same question, how many answers differ from its first."""
        return sum(text != one.texts[0] for one in self.all for text in one.texts)


def machines():
    made = {name: Machine(name, number)
            for number, name in enumerate(("head-a", "head-b", "node-c", "node-d", "store"), 1)}
    RUNNING.extend(machine.holder for machine in made.values())
    return made
