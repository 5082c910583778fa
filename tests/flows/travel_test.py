"""Models travel: a node that sees nothing of the head's home joins, gets what it lacks over the link
and serves right texts within two seconds; versions and whole jobs follow. What breaks off goes on
where it stopped, and what cannot be had is said in a line."""
import hashlib
import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks, made_up_facts  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import TOPICS, Node, Streams, client_of, story, workers_of  # noqa: E402
from support.job_events import wait_for_end, wait_for_step  # noqa: E402
from support.tandem_server import BINARY, QUICKSTART, Server  # noqa: E402
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

NODE_DEVICE = "node2/cpu:1-1"
WITHIN_S = 2.0
# A mount of nothing over the head's home, in a world of its own: as on another machine.
APART = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])


class Head:
    """A head whose home only it can see."""

    def __init__(self, model, *options):
        self.home = pathlib.Path(tempfile.mkdtemp(dir=FOLDER, prefix="head-"))
        self.model = self.home / "models" / pathlib.Path(model).name
        self.model.parent.mkdir()
        subprocess.run(["cp", "-rL", model, self.model], check=True)
        self.server = Server("--devices", "cpu:0-0", "--set", "cluster.listen=127.0.0.1:0",
                             *options, model=self.model, TANDEM_HOME=str(self.home))
        self.cluster = json.loads(self.server.get("/admin/nodes"))["data"][0]["address"]

    def join(self, home, *options, **extra):
        return Node(self.cluster, "--devices", "cpu:1-1", "--name", "node2", *options,
                    binary=blind_to(self.home), TANDEM_HOME=str(home), **extra)

    def device(self, name=NODE_DEVICE):
        devices = json.loads(self.server.get("/admin/cluster"))["devices"]
        return next((d for d in devices if d["name"] == name), None)

    def serves(self, deadline_s=30):
        return self.server.wait_until(
            lambda: (self.device() or {}).get("ready", False), deadline_s)


def blind_to(home):
    """A program that is tandem, and does not see `home`."""
    path = pathlib.Path(tempfile.mkdtemp(dir=FOLDER)) / "tandem"
    path.write_text("#!/bin/sh\nexec " + " ".join(APART) + " sh -c '"
                    f"mount -t tmpfs none {home} && exec {BINARY} \"$@\"' tandem \"$@\"\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def fresh_home():
    return pathlib.Path(tempfile.mkdtemp(dir=FOLDER, prefix="node-"))


def kept(home):
    """Whole copies in a node's cache: {name: path}."""
    return {path.name: path for path in (home / "cache" / "models").glob("*/*")
            if not path.parent.name.endswith(".part")}


def joins_and_serves(model, *isolation):
    head, home = Head(model), fresh_home()
    client = client_of(head.server)
    name = client.models.list().data[0].id
    alone = {topic: story(client, name, topic) for topic in TOPICS}
    times = []
    with Streams(head.server, name, alone) as streams:
        for what in ("nothing there", "in its cache"):
            began = time.monotonic()
            node = head.join(home, *isolation)
            first = head.server.wait_until(
                lambda: (head.device() or {}).get("tokens_generated", 0) > 0, 60)
            times.append(time.monotonic() - began)
            print(f"   {model.name}, {what}: {times[-1]:.2f} s from join to the first token there")
            check(first, f"{NODE_DEVICE} serves")
            told = streams.told() + 6
            head.server.wait_until(lambda: streams.told() >= told, 120)
            check(node.end(signal.SIGTERM) == 0, f"it left with status 0 {node.errors or ''}")
    copies = kept(home)
    check(list(copies) == [model.name], f"its cache holds {list(copies)}")
    if model.is_file():
        check(hashlib.sha256(copies[model.name].read_bytes()).digest()
              == hashlib.sha256(model.read_bytes()).digest(), "byte for byte")
    check(not streams.problems(), f"no request failed {streams.problems() or ''}")
    check(streams.wrong() == 0 and streams.told() > 0,
          f"{streams.told()} texts are those of an undisturbed run ({streams.wrong()} are not)")
    check(head.server.end() == 0, "the head ended well")
    return times


with tempfile.TemporaryDirectory() as FOLDER:
    blind = subprocess.run([*APART, "mount", "-t", "tmpfs", "none", FOLDER], capture_output=True)
    if blind.returncode != 0:
        print(f"skipped: no mounts of our own here: {blind.stderr.decode().strip()}")
        sys.exit(77)
    joins_and_serves(QUICKSTART)
    joins_and_serves(QUICKSTART, "--set", "devices.isolation=process")
checks.end()
