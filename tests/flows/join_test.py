"""Nodes join a running cluster and leave it under streams: nothing is lost, and who may not join is
told why in one line."""
import json
import os
import pathlib
import re
import signal
import socket
import stat
import sys
import tempfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import TOPICS, Node, Streams, client_of, story, workers_of  # noqa: E402
from support.tandem_server import BINARY, Server, fresh_home, run_tandem  # noqa: E402


class Head:
    """A head on one core that others can join, and where."""

    def __init__(self, folder, *arguments, cluster="127.0.0.1:0"):
        self.home = fresh_home(tempfile.mkdtemp(dir=folder))
        self.server = Server("--devices", "cpu:0-0", "--set", f"cluster.listen={cluster}",
                             *arguments, TANDEM_HOME=self.home)
        self.cluster = json.loads(self.server.get("/admin/nodes"))["data"][0]["address"]

    def nodes(self):
        return {n["name"]: n for n in json.loads(self.server.get("/admin/nodes"))["data"]}

    def serving(self):
        return {d["name"] for d in json.loads(self.server.get("/admin/cluster"))["devices"]
                if d["ready"]}

    def join(self, name, *arguments, **extra):
        return Node(self.cluster, "--devices", "cpu:1-1", "--name", name, *arguments, **extra)


def joined_and_left(folder, isolation):
    head = Head(folder)
    server = head.server
    client = client_of(server)
    model = client.models.list().data[0].id
    alone = {topic: story(client, model, topic) for topic in TOPICS}
    device = "node2/cpu:1-1"
    with Streams(server, model, alone) as streams:
        for round_ in range(2):
            node = head.join("node2", "--set", f"devices.isolation={isolation}")
            said = node.says(r"joined (\S+) as node2 \(\S+\) in (\d+) ms")
            check(said is not None, f"it says that it joined: {said and said.group(0)}")
            check(server.wait_until(lambda: device in head.serving(), 30), f"{device} serves")
            check(head.nodes()["node2"]["state"] == "up", "the roster has it")
            told = streams.told() + 6
            server.wait_until(lambda: streams.told() >= told, 120)
            if round_ == 0:
                check(node.end(signal.SIGTERM) == 0, "SIGTERM: it left with status 0")
            else:
                status, out, err = run_tandem("drain", "node2", "--address", server.address)
                check(status == 0, f"tandem drain: {out.strip()}{err.strip()}")
                check(node.wait() == 0, "a drained node ends with status 0")
            check(any(re.match("left ", line) for line in node.lines), f"it says so: {node.lines}")
            check(server.wait_until(lambda: head.nodes()["node2"]["state"] == "left"),
                  "the roster says that it left")
        node = head.join("node2", "--set", f"devices.isolation={isolation}")
        server.wait_until(lambda: device in head.serving(), 30)
        told = streams.told() + 6
        server.wait_until(lambda: streams.told() >= told, 120)
        workers = workers_of(node.process.pid)
        node.end(signal.SIGKILL)
        told = streams.told() + 10
        server.wait_until(lambda: streams.told() >= told, 120)
    print(streams.gap_table())
    check(not streams.problems(), f"no request failed {streams.problems() or ''}")
    check(streams.wrong() == 0 and streams.told() > 0,
          f"{streams.told()} texts are those of an undisturbed run ({streams.wrong()} are not)")
    check(bool(workers) == (isolation == "process") and not any(
        pathlib.Path(f"/proc/{pid}").exists() for pid in workers.values()),
        "its workers ended with it")
    kinds = [e["kind"] for e in json.loads(
        server.get("/admin/leases/history?limit=1000"))["data"]]
    check(kinds.count("node_joined") == 3 and kinds.count("node_left") == 3,
          "three joined and three left in the history")
    status, out, _ = run_tandem("nodes", "--address", server.address)
    check(status == 0 and "node2" in out and "head" in out, "tandem nodes lists them")
    check(server.end() == 0, "the head ended well")


def head_comes_back(folder):
    head = Head(folder)
    node = head.join("node2")
    check(node.says("joined ") is not None, "it joined")
    head.server.end(signal.SIGKILL)
    check(node.says("lost ") is not None, "it says that the head is lost")
    again = Head(folder, cluster=head.cluster)
    check(node.says("joined ", 2) is not None, "it joined the head that came back")
    check(again.server.wait_until(lambda: "node2/cpu:1-1" in again.serving(), 30), "and serves")
    check(node.end() == 0, "and left")
    again.server.end()


def turned_away(folder):
    secret, other = pathlib.Path(folder) / "secret", pathlib.Path(folder) / "other"
    secret.write_text("a secret that nobody guesses\n")
    other.write_text("another one that nobody knows\n")
    short = pathlib.Path(folder) / "short"
    short.write_text("123\n")
    head = Head(folder, "--set", f"cluster.secret_file={secret}")

    def refused(what, node, *words):
        status = node.wait(30)
        said = [line for line in node.errors if line.startswith("tandem: ")]
        check(status == 1 and len(node.errors) == 1 and all(w in "".join(said) for w in words),
              f"{what}: {node.errors}")

    refused("no secret", head.join("a"), "secret")
    refused("another secret", head.join("a", "--secret-file", other), "secret")
    refused("a secret of three characters", head.join("a", "--secret-file", short), "16")
    node = head.join("node2", "--secret-file", secret)
    check(node.says("joined ") is not None, "with the secret it joins")
    check(head.server.wait_until(lambda: "node2/cpu:1-1" in head.serving(), 60), "and serves")
    refused("a name that is taken", head.join("node2", "--secret-file", secret), "node2", "--name")

    version = json.loads(run_tandem("version", "--json")[1])
    patched = pathlib.Path(folder) / "tandem_of_another_commit"
    commit = version["commit"].encode()
    patched.write_bytes(BINARY.read_bytes().replace(commit, b"0" * len(commit)))
    patched.chmod(patched.stat().st_mode | stat.S_IXUSR)
    refused("another build", head.join("b", "--secret-file", secret, binary=patched), "build")

    host, port = head.cluster.rsplit(":", 1)
    for junk in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b""):
        with socket.create_connection((host, int(port)), timeout=10) as line:
            line.sendall(junk)
            line.shutdown(socket.SHUT_WR)
            while line.recv(4096):
                pass
    check("node2/cpu:1-1" in head.serving(), "garbage on the cluster's port harms nobody")

    with socket.create_server(("127.0.0.1", 0)) as stranger:
        def talk():
            peer, _ = stranger.accept()
            with peer:
                peer.sendall(b"220 mail.example.com ESMTP\r\n" * 10)
                while peer.recv(4096):
                    pass
        talking = threading.Thread(target=talk, daemon=True)
        talking.start()
        refused("a stranger at the address", Node(
            f"127.0.0.1:{stranger.getsockname()[1]}", "--secret-file", secret, "--devices",
            "cpu:1-1"))
    refused("nobody at the address", Node("127.0.0.1:1", "--devices", "cpu:1-1"), "127.0.0.1:1")
    check(node.end() == 0, "the one that joined left")
    head.server.end()


with tempfile.TemporaryDirectory() as FOLDER:
    joined_and_left(FOLDER, "process")
    joined_and_left(FOLDER, "none")
    head_comes_back(FOLDER)
    turned_away(FOLDER)
checks.end()
