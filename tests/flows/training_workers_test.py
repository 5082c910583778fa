"""Jobs over devices that share no memory: worker processes, and a node that joined. The parameters
are those of one process, to the bit; kill -9 of a worker every few seconds, under streams, changes
neither them nor a text, and costs one step at most however far apart checkpoints are; nodes come,
leave and die while a job runs.

TANDEM_KILLS sets how many workers are killed (8)."""
import json
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks, made_up_facts  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import (TOPICS, Node, Streams, client_of, story, workers_of,  # noqa: E402
                             zombies_of)
from support.job_events import wait_for_end, wait_for_step  # noqa: E402
from support.tandem_server import QUICKSTART, Server, fresh_home  # noqa: E402
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

KILLS = int(os.environ.get("TANDEM_KILLS", "8"))
DEVICES = ["cpu:0-0", "cpu:1-1"]
WORKERS = ["--devices", ",".join(DEVICES), "--set", "devices.isolation=process"]
ALONE = ["--devices", DEVICES[0], "--set", "devices.isolation=none"]


def up(*options, model=QUICKSTART):
    return Server(*options, model=model, TANDEM_HOME=fresh_home(tempfile.mkdtemp(dir=FOLDER)))


def write_facts():
    return made_up_facts.write(pathlib.Path(tempfile.mkdtemp(dir=FOLDER)) / "facts.jsonl")


def train(server, method, epochs, **own):
    client = client_of(server)
    file = client.files.create(file=write_facts().open("rb"), purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model=client.models.list().data[0].id, training_file=file.id, suffix="facts", seed=5,
        method={"type": "supervised", "supervised": {"hyperparameters": {
            "n_epochs": epochs, "batch_size": 4}}},
        extra_body={"tandem": {"method": method, "slots": 4, "learning_rate": 1e-3} | own}).id


def events(server, job):
    found = client_of(server).fine_tuning.jobs.list_events(job, limit=100)
    return [event for page in found.iter_pages() for event in page.data]


def widths(server, job):
    """On how many devices the job went on, each time, in order."""
    began = [re.match(r"Training (?:started|goes on) on (\d+) device", e.message)
             for e in reversed(events(server, job))]
    return [int(found.group(1)) for found in began if found]


def weights(server, job):
    """The parameters' hash of a job that succeeded."""
    wait_for_end(server.address, job)
    done = client_of(server).fine_tuning.jobs.retrieve(job)
    if done.status != "succeeded":
        raise RuntimeError(f"{done.status}: {done.error}")
    return next(e.data["parameters_sha256"] for e in events(server, job)
                if e.data and "parameters_sha256" in e.data)


def undisturbed(model, method, epochs, **own):
    with up(*ALONE, model=model) as server:
        return weights(server, train(server, method, epochs, **own))


def serving(server):
    cluster = json.loads(server.get("/admin/cluster"))
    return {d["name"] for d in cluster["devices"] if d["ready"]}


def published(server, job):
    """The job's versions are there and answer."""
    client = client_of(server)
    model = client.fine_tuning.jobs.retrieve(job).fine_tuned_model
    names = {one.id for one in client.models.list().data}
    saved = client.fine_tuning.jobs.checkpoints.list(job).data
    check(model in names, f"{model} is served")
    check(len(saved) > 0 and saved[0].fine_tuned_model_checkpoint in names,
          f"{len(saved)} checkpoints are listed, the newest is served")
    check(len(story(client, model, "river")) > 0, "and answers")


def two_workers(model):
    for method in ("full", "lora"):
        truth = undisturbed(model, method, 4)
        with up(*WORKERS, model=model) as server:
            job = train(server, method, 4)
            check(weights(server, job) == truth,
                  f"{method}: two workers make the parameters of one process: {truth[:16]}")
            check(widths(server, job) == [2], f"{method}: on two devices all the while")
            published(server, job)
            check(server.end() == 0, "the head drained and ended")


def killed_under_streams(model, method, epochs):
    chance = random.Random(7)
    own = {"checkpoint_every_steps": 8}
    truth = undisturbed(model, method, epochs, **own)
    with up(*WORKERS, "--set", "share.policy=train_first", model=model) as server:
        client = client_of(server)
        base = client.models.list().data[0].id
        alone = {topic: story(client, base, topic) for topic in TOPICS}
        job = train(server, method, epochs, **own)
        wait_for_step(server.address, job, 1)
        killed = 0
        with Streams(server, base, alone) as streams:
            while killed < KILLS:
                told = streams.told() + chance.randint(2, 8)
                server.wait_until(lambda: streams.told() >= told, 120)
                if client.fine_tuning.jobs.retrieve(job).status != "running":
                    break
                device = DEVICES[killed % 2]
                os.kill(workers_of(server.process.pid)[device], signal.SIGKILL)
                killed += 1
                if not server.wait_until(lambda: serving(server) == set(DEVICES), 60):
                    break
            began = time.monotonic()
            hash_ = weights(server, job)
            print(f"   the job ended {time.monotonic() - began:.1f} s after the last kill")
        print(streams.gap_table())
        print(f"   widths along the way: {widths(server, job)}")
        check(killed >= 3, f"{method}: {killed} workers were killed while the job ran")
        check(hash_ == truth, f"{method}: the parameters are those of an undisturbed run")
        check(not streams.problems(), f"no request failed {streams.problems() or ''}")
        check(streams.wrong() == 0 and streams.told() > 0,
              f"{streams.told()} texts are those of an undisturbed run ({streams.wrong()} are not)")
        published(server, job)
        check(zombies_of(server.process.pid) == 0, "no dead worker is left over")


def killed_far_from_checkpoints(model, method, epochs):
    """Workers die between the first step and the only checkpoint, the last: what each had comes from
    its copy. A kill that meets an update, or copies on their way, starts the job over; few do."""
    own = {"checkpoint_every_steps": 10000}
    truth = undisturbed(model, method, epochs, **own)
    with up(*WORKERS, "--set", "share.policy=train_first", model=model) as server:
        job = train(server, method, epochs, **own)

        def told(words):
            return [e for e in events(server, job) if words in e.message]

        killed = 0
        for device in DEVICES * 2:
            step = max(e.data["step"] for e in events(server, job)
                       if e.type == "metrics") if killed else 0
            wait_for_step(server.address, job, step + 3)
            if client_of(server).fine_tuning.jobs.retrieve(job).status != "running":
                break
            os.kill(workers_of(server.process.pid)[device], signal.SIGKILL)
            killed += 1
            check(server.wait_until(lambda: len(told("its optimizer state comes from its copy"))
                                    + len(told("Going on from the newest checkpoint")) >= killed,
                                    60), f"the job says what the death of {device} cost")
            check(server.wait_until(lambda: widths(server, job)[-1:] == [2], 60), "two train again")
        rescued = told("its optimizer state comes from its copy")
        for event in rescued:
            print(f"   {event.message}")
        steps = [e.data["step"] for e in events(server, job) if e.type == "metrics"]
        hash_ = weights(server, job)
        check(killed >= 2 and rescued, f"{method}: {len(rescued)} of {killed} deaths used the copy")
        check(all(e.data["steps_done_again"] <= 1 for e in rescued), "and cost one step at most")
        check(len(rescued) < killed or len(set(steps)) == len(steps), "no step was done twice")
        check(hash_ == truth, f"{method}: the parameters are those of an undisturbed run")


def nodes_come_and_go(model, method, epochs):
    truth = undisturbed(model, method, epochs)
    with up("--devices", "cpu:0-0", "--set", "cluster.listen=127.0.0.1:0", model=model) as server:
        address = json.loads(server.get("/admin/nodes"))["data"][0]["address"]

        def joined(name):
            node = Node(address, "--devices", "cpu:1-1", "--name", name)
            check(node.says("joined ") is not None, f"{name} joined")
            return node

        def reaches(width):
            return server.wait_until(lambda: widths(server, job)[-1:] == [width], 60)

        job = train(server, method, epochs)
        wait_for_step(server.address, job, 2)
        node2 = joined("node2")
        check(reaches(2), "two nodes train")
        node3, node4 = joined("node3"), joined("node4")
        check(reaches(4), "four nodes train")
        check(node3.end(signal.SIGTERM) == 0, "node3 left with status 0")
        check(reaches(2), "of three nodes two train")
        check(node4.end(signal.SIGTERM) == 0, "node4 left with status 0")
        node2.end(signal.SIGKILL)
        check(reaches(1), "node2 was killed: one trains")
        check(client_of(server).fine_tuning.jobs.retrieve(job).status == "running",
              "1, 2, 4, 3 and 1 nodes while the job ran")
        hash_ = weights(server, job)
        print(f"   widths along the way: {widths(server, job)}")
        check(hash_ == truth, f"{method}: the parameters are those of an undisturbed run")
        published(server, job)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as FOLDER:
        TINY = make_tiny_chat_model(pathlib.Path(FOLDER) / "tiny-chat")
        two_workers(TINY)
        killed_under_streams(TINY, "full", 50)
        killed_far_from_checkpoints(TINY, "full", 50)
        nodes_come_and_go(TINY, "full", 50)
    checks.end()
