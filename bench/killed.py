"""Whole processes killed with SIGKILL, every few seconds, under eight streams and full fine-tuning
jobs: any of the nodes that joined a head, or any of its workers. Each text and each job's parameters
must be those of an undisturbed run; how long the streams paused is the result.

    build/venv/bin/python bench/killed.py nodes [--minutes 10] [--nodes 4] [--every 2 6] [--json FILE]
    build/venv/bin/python bench/killed.py workers [--minutes 10] [--json FILE]

One machine: the nodes share its cores. A node that is killed is started again at once.
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))
from support import made_up_facts  # noqa: E402
from support.cluster import TOPICS, Node, Streams, client_of, story, workers_of  # noqa: E402
from support.job_events import wait_for_end, wait_for_step  # noqa: E402
from support.tandem_server import QUICKSTART, Server, fresh_home  # noqa: E402
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

CORES = sorted(os.sched_getaffinity(0))
GAP_LIMIT_MS = {"nodes": 3000, "workers": 1000}


def ready_devices(server):
    cluster = json.loads(server.get("/admin/cluster"))
    return {device["name"] for device in cluster["devices"] if device["ready"]}


class Nodes:
    """A head with one device, and nodes with one each that are killed."""

    def __init__(self, options, home):
        self.options, self.home = options, home
        self.server = Server("--devices", device(0), "--set", "cluster.listen=127.0.0.1:0",
                             "--set", "share.policy=train_first",
                             model=options.model, TANDEM_HOME=home)
        self.address = json.loads(self.server.get("/admin/nodes"))["data"][0]["address"]
        self.nodes = {f"node{n}": self.start(n) for n in range(2, 2 + options.nodes)}
        self.all = {device(0)} | {f"node{n}/{device(n)}" for n in range(2, 2 + options.nodes)}

    def start(self, n):
        return Node(self.address, "--devices", device(n), "--name", f"node{n}",
                    TANDEM_HOME=self.home)

    def kill(self, chance):
        name = chance.choice(sorted(self.nodes))
        self.nodes[name].end(signal.SIGKILL)
        self.nodes[name] = self.start(int(name[4:]))
        return name

    def end(self):
        for node in self.nodes.values():
            node.end(signal.SIGKILL)
        self.server.end()


class Workers:
    """A head whose devices are processes of their own, which it starts again itself."""

    def __init__(self, options, home):
        self.all = {device(n) for n in range(len(CORES))}
        self.server = Server("--devices", ",".join(sorted(self.all)),
                             "--set", "devices.isolation=process",
                             "--set", "share.policy=train_first",
                             model=options.model, TANDEM_HOME=home)

    def kill(self, chance):
        workers = workers_of(self.server.process.pid)
        if not workers:
            return None
        name = chance.choice(sorted(workers))
        os.kill(workers[name], signal.SIGKILL)
        return name

    def end(self):
        self.server.end()


def device(n):
    core = CORES[n % len(CORES)]
    return f"cpu:{core}-{core}"


def train(server, options, number):
    """A full job; its id."""
    client = client_of(server)
    data = pathlib.Path(options.folder) / "facts.jsonl"
    file = client.files.create(file=made_up_facts.write(data).open("rb"), purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model=client.models.list().data[0].id, training_file=file.id, suffix=f"facts{number}",
        seed=5, method={"type": "supervised", "supervised": {"hyperparameters": {
            "n_epochs": options.epochs, "batch_size": 4}}},
        extra_body={"tandem": {"method": "full", "slots": 4, "learning_rate": 1e-3,
                               "checkpoint_every_steps": options.checkpoint_every}}).id


def weights(server, job):
    wait_for_end(server.address, job)
    client = client_of(server)
    done = client.fine_tuning.jobs.retrieve(job)
    if done.status != "succeeded":
        return f"{done.status}: {done.error}"
    for page in client.fine_tuning.jobs.list_events(job, limit=100).iter_pages():
        for event in page.data:
            if event.data and "parameters_sha256" in event.data:
                return event.data["parameters_sha256"]
    return "no hash"


class Jobs(threading.Thread):
    """One full job after another until told to stop; the last one ends by itself."""

    def __init__(self, server, options):
        super().__init__(daemon=True)
        self.server, self.options, self.hashes, self.enough = server, options, [], False
        self.running = None

    def run(self):
        while not self.enough:
            self.running = train(self.server, self.options, len(self.hashes))
            self.hashes.append(weights(self.server, self.running))


def undisturbed(options, home):
    with contextlib.closing(Alone(options, home)) as alone:
        server = alone.server
        model = client_of(server).models.list().data[0].id
        texts = {topic: story(client_of(server), model, topic) for topic in TOPICS}
        began = time.monotonic()
        truth = weights(server, train(server, options, 0))
        return texts, truth, time.monotonic() - began


class Alone:
    def __init__(self, options, home):
        self.server = Server("--devices", device(0), "--set", "devices.isolation=none",
                             model=options.model, TANDEM_HOME=home)

    def close(self):
        self.server.end()


def disturb(options, house, texts):
    """What came of it."""
    chance = random.Random(options.seed)
    server = house.server
    if not server.wait_until(lambda: ready_devices(server) == house.all, 120):
        raise SystemExit(f"not all serve: {ready_devices(server)} of {house.all}")
    model = client_of(server).models.list().data[0].id
    jobs = Jobs(server, options)
    killed, back_ms, never = [], [], threading.Event()
    with Streams(server, model, texts) as streams:
        jobs.start()
        server.wait_until(lambda: jobs.running, 60)
        wait_for_step(server.address, jobs.running, 1)
        began = time.monotonic()
        while time.monotonic() - began < options.minutes * 60 and not failed(streams):
            never.wait(chance.uniform(*options.every))
            since = time.monotonic()
            killed.append(house.kill(chance))
            # A look takes little of the cores.
            if not server.wait_until(
                    lambda: never.wait(0.01) or ready_devices(server) == house.all, 30):
                print(f"   {killed[-1]} did not come back: {ready_devices(server)}", flush=True)
            back_ms.append(round((time.monotonic() - since) * 1000))
        jobs.enough = True
        jobs.join(900)
    print(streams.gap_table(), flush=True)
    for gap, when in sorted(((gap, when) for stream in streams.all
                             for gap, when in zip(stream.gaps, stream.when)), reverse=True)[:12]:
        ended = time.strftime("%H:%M:%S", time.gmtime(when)) + f"{when % 1:.3f}"[1:]
        print(f"   a gap of {1000 * gap:.0f} ms ended at {ended}")
    gaps = sorted(1000 * gap for stream in streams.all for gap in stream.gaps)
    if not killed or not gaps:
        raise SystemExit(f"nothing was killed, or nothing came: {streams.problems()}")
    return {"killed": len(killed), "back_ms_p50": sorted(back_ms)[len(back_ms) // 2],
            "back_ms_max": max(back_ms), "texts": streams.told(), "wrong": streams.wrong(),
            "failed": streams.problems(), "tokens": len(gaps),
            "gap_ms_p50": round(gaps[len(gaps) // 2], 1),
            "gap_ms_p999": round(gaps[int(len(gaps) * 0.999)], 1),
            "gap_ms_max": round(gaps[-1], 1), "longest_gaps_ms": [round(g) for g in gaps[-20:]],
            "jobs": jobs.hashes, "job_still_running": jobs.is_alive(), "lost": lost(server)}


def failed(streams):
    return [stream.problem for stream in streams.all if stream.problem]


def lost(server):
    """How many devices were lost, by what was said of it."""
    told = {}
    for event in json.loads(server.get("/admin/leases/history?limit=1000"))["data"]:
        if event["kind"] == "device_lost":
            why = event["why"].split(":")[-1].strip() if "node" in event["why"] else event["why"]
            told[why] = told.get(why, 0) + 1
    return told


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["nodes", "workers"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--every", type=float, nargs=2, default=[2, 6], metavar=("MIN", "MAX"),
                        help="seconds between two kills")
    parser.add_argument("--model", default="tiny", help="tiny (made here), quickstart or a path")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--checkpoint-every", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    parser.add_argument("--log", help="what the head said on its standard error goes there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        if options.model == "tiny":
            options.model = make_tiny_chat_model(pathlib.Path(folder) / "tiny-chat")
        elif options.model == "quickstart":
            options.model = QUICKSTART
        texts, truth, took = undisturbed(options, fresh_home(pathlib.Path(folder) / "alone"))
        print(f"   undisturbed: a job takes {took:.1f} s, {truth[:16]}", flush=True)
        kind = {"nodes": Nodes, "workers": Workers}[options.what]
        house = kind(options, fresh_home(pathlib.Path(folder) / "house"))
        try:
            result = disturb(options, house, texts)
        finally:
            house.end()
            if options.log:
                pathlib.Path(options.log).write_text("".join(house.server.errors))
    same = all(one == truth for one in result["jobs"]) and not result["job_still_running"]
    good = (same and result["killed"] and result["jobs"] and not result["failed"]
            and result["wrong"] == 0 and result["gap_ms_max"] <= GAP_LIMIT_MS[options.what])
    result = {"what": options.what, "command": " ".join(["bench/killed.py", *sys.argv[1:]]),
              "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], text=True,
                                       capture_output=True).stdout.strip(),
              "undisturbed_job_s": round(took, 1), **result, "same_parameters": same,
              "all_good": bool(good)}
    print(json.dumps(result, indent=1))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
