"""Two CPU devices that hold SmolLM2 together (model.tensor_parallel): one device to everybody, and
every text is the one a single device says, also by a tuned version and when its worker is killed,
and a job that they train has the numbers of one device."""
import json
import os
import pathlib
import signal
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks, made_up_facts  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import TOPICS, Node, Streams, client_of, story, workers_of  # noqa: E402
from support.job_events import wait_for_end  # noqa: E402
from support.tandem_server import QUICKSTART, Server, fresh_home, run_tandem  # noqa: E402

GROUP = "cpu:0-0+cpu:1-1"
TOGETHER = ["--devices", "cpu:0-0,cpu:1-1", "--tensor-parallel", "2"]


def texts_of(server, models):
    client = client_of(server)
    base, *tuned = models
    return {topic: story(client, base, topic) for topic in TOPICS} | {
        f"{thing} of a version": client.chat.completions.create(
            model=name, temperature=0, max_tokens=32,
            messages=[{"role": "user", "content": made_up_facts.question(thing)}],
        ).choices[0].message.content for name in tuned for thing in made_up_facts.FACTS}


def train(client, folder):
    data = made_up_facts.write(folder / "facts.jsonl").open("rb")
    return client.fine_tuning.jobs.create(
        model=client.models.list().data[0].id, seed=7, suffix="facts",
        training_file=client.files.create(file=data, purpose="fine-tune").id,
        method={"type": "supervised", "supervised": {"hyperparameters": {
            "n_epochs": 2, "batch_size": 6}}},
        extra_body={"tandem": {"method": "lora", "rank": 8, "learning_rate": 1e-3}})


def trained(server, folder, where):
    client = client_of(server)
    job = train(client, folder)
    wait_for_end(server.address, job.id)
    done = client.fine_tuning.jobs.retrieve(job.id)
    check(done.status == "succeeded", f"a job on {where} is {done.status} {done.error or ''}")
    return done


def parameters_of(home, job):
    """Of its newest checkpoint."""
    found = sorted(pathlib.Path(home).glob(f"**/{job.id}/**/parameters.f32"))
    return found[-1].read_bytes() if found else None


def alone(home, folder):
    """What one device says, the base and a version that it trained, and that version's numbers."""
    with Server("--devices", "cpu:0-1", TANDEM_HOME=home) as server:
        done = trained(server, folder, "one device")
        models = [client_of(server).models.list().data[0].id, done.fine_tuned_model]
        return models, texts_of(server, models), parameters_of(home, done)


def devices_of(server):
    return json.loads(server.get("/admin/cluster"))["devices"]


def trains_the_same(server, home, folder, models, expected, numbers):
    """A job on the group, while it serves."""
    with Streams(server, models[0], expected) as streams:
        done = trained(server, folder, "a group")
    check(not streams.problems() and streams.wrong() == 0,
          f"{streams.told()} texts beside the job are right {streams.problems() or ''}")
    check(numbers is not None and parameters_of(home, done) == numbers,
          "its checkpoint has the numbers of one device")
    tuned = [name for name in expected if name.endswith("of a version")]
    found = texts_of(server, [models[0], done.fine_tuned_model])
    wrong = [name for name in tuned if found[name] != expected[name]]
    check(not wrong, f"{len(tuned)} texts of its version are those of one device {wrong or ''}")


def says_the_same(isolation, home, folder, models, expected, numbers):
    with Server(*TOGETHER, "--set", f"devices.isolation={isolation}",
                TANDEM_HOME=home) as server:
        devices = devices_of(server)
        check([d["name"] for d in devices] == [GROUP] and devices[0]["ready"],
              f"{isolation}: the two are one device ({[d['name'] for d in devices]})")
        client = client_of(server)
        check(server.wait_until(lambda: models[1] in [m.id for m in client.models.list().data]),
              "the version of the job is served again")
        found = texts_of(server, models)
        wrong = [name for name in expected if found[name] != expected[name]]
        check(not wrong, f"{len(expected)} texts are those of one device {wrong or ''}")
        trains_the_same(server, home, folder, models, expected, numbers)
        if isolation == "process":
            killed(server, models[0], expected)
        check(server.end() == 0, "it drained and ended")


def killed(server, model, expected):
    with Streams(server, model, expected) as streams:
        for _ in range(3):
            told = streams.told() + 4
            server.wait_until(lambda: streams.told() >= told, 120)
            before = workers_of(server.process.pid)[GROUP]
            os.kill(before, signal.SIGKILL)
            back = server.wait_until(
                lambda: workers_of(server.process.pid).get(GROUP, before) != before
                and devices_of(server)[0]["ready"], 30)
            check(back, "the killed worker came back, with both ranks")
    check(not streams.problems() and streams.wrong() == 0,
          f"{streams.told()} texts under kills are right {streams.problems() or ''}")


def joins_and_goes(home, expected):
    """A group that joins a plain device has requests of its, and gives them back, read again."""
    with Server("--devices", "cpu:0-0", "--set", "cluster.listen=127.0.0.1:0",
                TANDEM_HOME=home) as server:
        address = json.loads(server.get("/admin/nodes"))["data"][0]["address"]
        client = client_of(server)
        model = client.models.list().data[0].id
        with Streams(server, model, expected) as streams:
            node = Node(address, *TOGETHER, "--name", "node2", TANDEM_HOME=home)
            served = server.wait_until(
                lambda: any(d["name"].endswith(GROUP) and d["running"] > 0
                            for d in devices_of(server)), 60)
            check(served, f"a group that joined has requests "
                          f"({[(d['name'], d['running']) for d in devices_of(server)]})")
            told = streams.told() + 4
            server.wait_until(lambda: streams.told() >= told, 120)
            status, _, said = run_tandem("drain", "node2", "--address", server.address)
            check(status == 0, f"the group was drained {said.strip()}")
            told = streams.told() + 4
            server.wait_until(lambda: streams.told() >= told, 120)
        check(node.wait() == 0, "its node ended")
        check(not streams.problems() and streams.wrong() == 0,
              f"{streams.told()} texts of both kinds are right {streams.problems() or ''}")


def refused():
    for devices, count, words in (("cpu:0-0,cpu:1-1", 3, "the devices are 2 (cpu:0-0, cpu:1-1)"),
                                  ("cpu:0-0", 2, "the devices are 1 (cpu:0-0)")):
        status, _, said = run_tandem("up", "--model", QUICKSTART, "--port", 0, "--devices", devices,
                                     "--tensor-parallel", count)
        check(status == 1 and words in said, f"refused: {said.strip()}")


with tempfile.TemporaryDirectory() as name:
    FOLDER = pathlib.Path(name)
    HOME = fresh_home(FOLDER)
    MODELS, EXPECTED, NUMBERS = alone(HOME, FOLDER)
    for kind in ("none", "process"):
        says_the_same(kind, HOME, FOLDER, MODELS, EXPECTED, NUMBERS)
    joins_and_goes(HOME, EXPECTED)
    refused()
checks.end()
