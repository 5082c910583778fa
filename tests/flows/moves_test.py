"""Two CPU devices, eight streams kept up, a full fine-tuning job, random moves of both devices all
the while: no request fails, each text is its undisturbed one, and so are the final weights.

TANDEM_MOVES sets how many moves are asked for at least (1000)."""
import json
import os
import pathlib
import random
import sys
import tempfile
import threading
import time
import urllib.error

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import openai  # noqa: E402
from support import checks, made_up_facts  # noqa: E402
from support.checks import check  # noqa: E402
from support.job_events import wait_for_end, wait_for_step  # noqa: E402
from support.tandem_server import QUICKSTART, Server, fresh_home  # noqa: E402

MOVES = int(os.environ.get("TANDEM_MOVES", "1000"))
STREAMS = 8
DEVICES = ["cpu:0-0", "cpu:1-1"]
TOPICS = ["lighthouse", "river", "clock", "lamp", "mountain", "kitchen", "garden", "ship"]

def story(client, model, topic):
    stream = client.chat.completions.create(
        model=model, temperature=0.8, seed=11, max_tokens=60, stream=True,
        messages=[{"role": "user", "content": f"Tell me a story about a {topic}."}])
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


class Stream(threading.Thread):
    """Asks for its story again and again until told to stop."""

    def __init__(self, address, model, topic, expected):
        super().__init__(daemon=True)
        self.client = openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0)
        self.model, self.topic, self.expected = model, topic, expected
        self.told = self.wrong = 0
        self.problem, self.enough = None, False

    def run(self):
        while not self.enough and self.problem is None:
            try:
                self.wrong += story(self.client, self.model, self.topic) != self.expected
                self.told += 1
            except Exception as why:  # told at the end
                self.problem = why


def train(client, model, file):
    return client.fine_tuning.jobs.create(
        model=model, training_file=file, seed=5,
        method={"type": "supervised", "supervised": {"hyperparameters": {
            "n_epochs": 1, "batch_size": 8}}},
        extra_body={"tandem": {"method": "full", "slots": 4, "learning_rate": 1e-5,
                               "micro_batch": 1, "checkpoint_every_steps": 1000}}).id


def weights(client, address, job):
    """The parameters' hash of a job that succeeded."""
    wait_for_end(address, job)
    done = client.fine_tuning.jobs.retrieve(job)
    if done.status != "succeeded":
        raise RuntimeError(f"{done.status}: {done.error}")
    for event in client.fine_tuning.jobs.list_events(job, limit=100):
        if event.data and "parameters_sha256" in event.data:
            return event.data["parameters_sha256"]
    raise RuntimeError("no hash was told")


def leases(server):
    return json.loads(server.get("/admin/leases"))


class Mover(threading.Thread):
    """Random orders by hand, each waited for, until told to stop."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.rng, self.enough = server, random.Random(7), False
        self.asked = self.refused = 0
        self.problem = None

    def held(self, device, role):
        page = next(d for d in leases(self.server)["devices"] if d["device"] == device)
        # Without a job there is nothing to train, whatever was ordered.
        return not page["resident"] or (page["role"] == role and page["moving_to"] is None)

    def run(self):
        try:
            while not self.enough:
                device = self.rng.choice(DEVICES)
                role = self.rng.choice(["serve", "shared", "train"])
                try:
                    self.server.post("/admin/assign", {"device": device, "role": role})
                except urllib.error.HTTPError as why:
                    if why.code != 409:  # it would leave nobody to serve
                        raise
                    self.refused += 1
                    continue
                self.asked += 1
                if not self.server.wait_until(lambda: self.held(device, role)):
                    raise RuntimeError(f"{device} did not become {role}: {leases(self.server)}")
        except Exception as why:  # told at the end
            self.problem = why


def run(server, folder):
    client = openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    alone = {topic: story(client, model, topic) for topic in TOPICS}
    file = client.files.create(file=made_up_facts.write(folder / "facts.jsonl").open("rb"),
                               purpose="fine-tune").id
    began = time.monotonic()
    undisturbed = weights(client, server.address, train(client, model, file))
    print(f"   undisturbed in {time.monotonic() - began:.1f} s", flush=True)

    streams = [Stream(server.address, model, topic, alone[topic]) for topic in TOPICS[:STREAMS]]
    for stream in streams:
        stream.start()
    before = leases(server)["moves"]
    hashes = []
    mover = None
    while not hashes or leases(server)["moves"] - before < MOVES:
        job = train(client, model, file)
        if mover is None:
            wait_for_step(server.address, job, 1)
            mover = Mover(server)
            mover.start()
        hashes.append(weights(client, server.address, job))
        if mover.problem:
            break
    mover.enough = True
    mover.join(60)
    made = leases(server)["moves"] - before
    for device in DEVICES:
        server.post("/admin/assign", {"device": device, "role": "auto"})
    for stream in streams:
        stream.enough = True
    for stream in streams:
        stream.join(120)

    check(mover.problem is None, f"the mover never failed {mover.problem or ''}")
    check(made >= MOVES, f"{made} moves ({mover.asked} orders, {mover.refused} refused), "
                         f"{len(hashes)} jobs beside them")
    problems = [f"{s.topic}: {s.problem!r}" for s in streams if s.problem]
    check(not problems, f"no request failed {problems or ''}")
    told = sum(s.told for s in streams)
    check(told >= STREAMS and not any(s.wrong for s in streams),
          f"each of {told} texts is its undisturbed one ({sum(s.wrong for s in streams)} differ)")
    check(set(hashes) == {undisturbed}, f"the weights are the undisturbed job's ({undisturbed[:12]})")
    history = json.loads(server.get("/admin/leases/history?limit=1000"))["data"]
    moves = [e for e in history if e["kind"] == "move"]
    check(moves and all(e["why"] and e["epoch"] > 0 for e in moves), "each move says why")
    check(len({e["epoch"] for e in moves}) == len(moves), "no two moves have one epoch")
    check(server.wait_until(server.idle), "nothing is left behind")


def main():
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made)
        with Server("--set", f"devices.list={json.dumps(DEVICES)}",
                    "--set", "devices.isolation=none",
                    "--set", "devices.memory_fraction=0.6",
                    "--set", "model.kv_memory=256MiB",
                    # Nothing but orders by hand moves devices here, however busy the machine is.
                    "--set", "serve.ttft_target_ms=60000", "--set", "serve.itl_target_ms=60000",
                    model=QUICKSTART,
                    TANDEM_HOME=fresh_home(folder)) as server:
            run(server, folder)
    checks.end()


if __name__ == "__main__":
    main()
