"""Models travel: a node that sees nothing of the head's home joins, gets what it lacks over the link
and serves right texts within seconds; versions and whole jobs follow. What breaks off goes on
where it stopped, and what cannot be had is said in a line."""
import concurrent.futures
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
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks, made_up_facts  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import TOPICS, Node, Streams, client_of, story  # noqa: E402
from support.job_events import wait_for_end, wait_for_step  # noqa: E402
from support.tandem_server import BINARY, QUICKSTART, Server  # noqa: E402
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

NODE_DEVICE = "node2/cpu:1-1"
WITHIN_S = 6.0  # below 1 on a quiet machine
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

    def join(self, home, *options, disk=None):
        return Node(self.cluster, "--devices", "cpu:1-1", "--name", "node2", *options,
                    binary=blind_to(self.home, home, disk), TANDEM_HOME=str(home))

    def device(self, name=NODE_DEVICE):
        devices = json.loads(self.server.get("/admin/cluster"))["devices"]
        return next((d for d in devices if d["name"] == name), None)

    def serves(self, deadline_s=30):
        return self.server.wait_until(
            lambda: (self.device() or {}).get("ready", False), deadline_s)


def blind_to(heads, own, disk):
    """A program that is tandem, does not see the head's home, and has a disk of this size."""
    mounts = f"mount -t tmpfs none {heads}"
    if disk:
        mounts += f" && mount -t tmpfs -o size={disk} none {own}"
    path = pathlib.Path(tempfile.mkdtemp(dir=FOLDER)) / "tandem"
    path.write_text("#!/bin/sh\nexec " + " ".join(APART)
                    + f" sh -c '{mounts} && exec {BINARY} \"$@\"' tandem \"$@\"\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def fresh_home():
    return pathlib.Path(tempfile.mkdtemp(dir=FOLDER, prefix="node-"))


def kept(home):
    """Whole copies in a node's cache: {name: path}."""
    return {path.name: path for path in (home / "cache" / "models").glob("*/*")
            if not path.parent.name.endswith(".part")}


class ShortRequests(threading.Thread):
    """One short request after another, as long as it is used as a context: whoever serves next gets
    one soon, where eight long streams may be a while."""

    def __init__(self, client, model):
        super().__init__(daemon=True)
        self.client, self.model, self.enough = client, model, False

    def run(self):
        while not self.enough:
            self.client.completions.create(model=self.model, prompt="One, two,", max_tokens=2)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.enough = True
        self.join()


def joins_and_serves(model, *isolation):
    head, home = Head(model), fresh_home()
    client = client_of(head.server)
    name = client.models.list().data[0].id
    alone = {topic: story(client, name, topic) for topic in TOPICS}
    times = []
    with Streams(head.server, name, alone) as streams, ShortRequests(client_of(head.server), name):
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


def trains_and_serves(method):
    """A job over both; its versions answer on the node as they do on the head."""
    facts = made_up_facts.write(pathlib.Path(tempfile.mkdtemp(dir=FOLDER)) / "facts.jsonl")

    def train(server):
        client = client_of(server)
        file = client.files.create(file=facts.open("rb"), purpose="fine-tune")
        return client, client.fine_tuning.jobs.create(
            model=client.models.list().data[0].id, training_file=file.id, suffix="facts", seed=5,
            method={"type": "supervised", "supervised": {"hyperparameters": {
                "n_epochs": EPOCHS, "batch_size": 4}}},
            extra_body={"tandem": {"method": method, "slots": 4, "learning_rate": 1e-3}}).id

    def events(client, job):
        found = client.fine_tuning.jobs.list_events(job, limit=100)
        return [event for page in found.iter_pages() for event in page.data]

    def weights(client, job):
        return next(e.data["parameters_sha256"] for e in events(client, job)
                    if e.data and "parameters_sha256" in e.data)

    alone = Head(TINY)
    client, job = train(alone.server)
    wait_for_end(alone.server.address, job)
    truth = weights(client, job)
    alone.server.end()

    head, home = Head(TINY), fresh_home()
    client, job = train(head.server)
    wait_for_step(head.server.address, job, 2)
    node = head.join(home)
    check(head.serves(), f"{method}: {NODE_DEVICE} serves while a job runs")
    wait_for_end(head.server.address, job)
    done = client.fine_tuning.jobs.retrieve(job)
    widths = [re.match(r"Training (?:started|goes on) on (\d+) device", e.message)
              for e in reversed(events(client, job))]
    widths = [int(found.group(1)) for found in widths if found]
    check(done.status == "succeeded" and 2 in widths, f"{method}: {done.status}, over {widths}")
    check(weights(client, job) == truth, f"{method}: the parameters are those of one process")
    before = head.device()["tokens_generated"]
    with concurrent.futures.ThreadPoolExecutor() as pool:  # more than one device takes at once
        told = list(pool.map(lambda _: story(client_of(head.server), done.fine_tuned_model, "river"),
                             range(16)))
    check(told[0] and told.count(told[0]) == 16, f"{method}: 16 answers of its version are the same")
    check(head.device()["tokens_generated"] > before,
          f"{head.device()['tokens_generated'] - before} tokens of them were made on the node")
    check(any(name.startswith("step-") for name in kept(home)), f"it keeps {sorted(kept(home))}")
    check(node.end() == 0, f"the node left with status 0 {node.errors or ''}")
    head.server.end()


def full_disk():
    """A node whose disk is too small says so, and serves once there is room."""
    head, home = Head(QUICKSTART), fresh_home()
    node = head.join(home, disk="50m")
    said = head.server.wait_until(lambda: any("MB are free" in line for line in node.errors), 30)
    check(said and "make room" in node.errors[-1], f"it says so: {node.errors[-1:]}")
    check(not (head.device() or {}).get("ready"), "and does not serve")
    subprocess.run(["nsenter", "--mount", "--target", str(node.process.pid),
                    "mount", "-o", "remount,size=500m", home], check=True)
    check(head.serves(), "with room it serves")
    check(node.end() == 0, "it left with status 0")
    head.server.end()


def small_cache():
    head = Head(QUICKSTART)
    node = head.join(fresh_home(), "--set", "cluster.cache_bytes=10MB")
    said = head.server.wait_until(lambda: any("cluster.cache_bytes" in e for e in node.errors), 30)
    check(said, f"a cache that is too small: {node.errors}")
    check(node.end() == 0, "it left with status 0")
    head.server.end()


def link_out():
    """What lies behind a link out of the model's folder is not given away."""
    head = Head(TINY)
    secret = head.home / "secret.json"
    secret.write_text("{}")
    (head.model / "extra.json").symlink_to(secret)
    node = head.join(fresh_home())
    said = head.server.wait_until(lambda: any("link out" in e for e in node.errors), 30)
    check(said, f"a link out of the model's folder: {node.errors}")
    node.end()
    head.server.end()


EPOCHS = 30
with tempfile.TemporaryDirectory() as FOLDER:
    blind = subprocess.run([*APART, "mount", "-t", "tmpfs", "none", FOLDER], capture_output=True)
    if blind.returncode != 0:
        print(f"skipped: no mounts of our own here: {blind.stderr.decode().strip()}")
        sys.exit(77)
    TINY = make_tiny_chat_model(pathlib.Path(FOLDER) / "tiny-chat")
    for isolation in ("process", "none"):
        print(f"   devices.isolation = {isolation}")
        seconds = joins_and_serves(QUICKSTART, "--set", f"devices.isolation={isolation}")
        check(max(seconds) < WITHIN_S, f"each within {WITHIN_S} s")
    for each in ("lora", "full"):
        trains_and_serves(each)
    full_disk()
    small_cache()
    link_out()
checks.end()
