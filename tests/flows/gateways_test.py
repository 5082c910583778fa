"""Every node has an HTTP address: each serves the whole surface, streams through a node's door go on
when another node dies, when the head itself is killed and started again and when another head takes
over, and keys hold at all.

TANDEM_TEST_POSTGRES names the server for the heads that stand by; test.sh starts one."""
import json
import pathlib
import re
import signal
import sys
import tempfile
import threading
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import TOPICS, Node, client_of, story  # noqa: E402
from support.heads import SERVER, Head, free_port, new_database  # noqa: E402
from support.tandem_server import QUICKSTART, Server, fresh_home  # noqa: E402

CORES = ["cpu:0-0", "cpu:1-1"]


class Door:
    """The HTTP address of a node that joined; it looks like a server to the helpers."""

    def __init__(self, head, name, cores, *arguments, **extra):
        self.node = Node(head, "--devices", cores, "--name", name, "--port", "0", *arguments, **extra)
        said = self.node.says(r"door (\S+)", deadline_s=90)
        if not said:
            raise RuntimeError(f"{name} opened no door: {self.node.lines} {self.node.errors}")
        self.address = said.group(1)

    get, post, wait_until = Server.get, Server.post, Server.wait_until


def nodes_of(server):
    return json.loads(server.get("/admin/nodes"))["data"]


def ready(server):
    return {d["name"] for d in json.loads(server.get("/admin/cluster"))["devices"] if d["ready"]}


def status_of(address, path, key=None, method="GET", body=None):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if body is not None:
        headers["content-type"] = "application/json"
    request = urllib.request.Request(address + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, dict(refused.headers), refused.read().decode()


class Telling(threading.Thread):
    """One story through a door; `begun` is set when some of it has come."""

    def __init__(self, door, model, topic):
        super().__init__(daemon=True)
        self.client, self.model, self.topic = client_of(door), model, topic
        self.begun, self.pieces, self.text, self.problem = threading.Event(), 0, None, None
        self.start()

    def run(self):
        try:
            self.text = story(self.client, self.model, self.topic, self.heard)
        except Exception as why:  # told by the checks
            self.problem = why
        self.begun.set()

    def heard(self):
        self.pieces += 1
        if self.pieces == 5:
            self.begun.set()


def told_as_alone(tellings, alone):
    for one in tellings:
        one.join(180)
    wrong = [f"{t.topic}: {t.problem or t.text!r}" for t in tellings if t.text != alone[t.topic]]
    return wrong


def every_door_serves(folder):
    home = fresh_home(tempfile.mkdtemp(dir=folder))
    arguments = ["--devices", CORES[0], "--set", "server.gateways=all"]
    server = Server(*arguments, "--set", "cluster.listen=127.0.0.1:0", TANDEM_HOME=home)
    cluster = nodes_of(server)[0]["address"]
    doors = [Door(cluster, name, CORES[1]) for name in ("node2", "node3")]
    check(server.wait_until(lambda: len(ready(server)) == 3, 60), f"all devices serve {ready(server)}")
    model = client_of(server).models.list().data[0].id
    alone = {topic: story(client_of(server), model, topic) for topic in TOPICS}

    for door in doors:
        check(client_of(door).models.list().data == client_of(server).models.list().data,
              f"{door.address} lists the same models")
        wrong = told_as_alone([Telling(door, model, topic) for topic in TOPICS[:3]], alone)
        check(not wrong, f"its texts are those of the head {wrong or ''}")
        check(json.loads(door.get("/health"))["status"] == "ready", "its health is good")
        check("tandem_generation_tokens_total" in door.get("/metrics"), "it has metrics")
        check("<html" in door.get("/"), "it has the page")

    check([n["name"] for n in nodes_of(doors[0])] == ["head", "node2", "node3"],
          "the admin plane is passed on to the head")
    passed_on(server, doors[0], model)

    tellings = [Telling(doors[0], model, topic) for topic in TOPICS]
    for one in tellings:
        one.begun.wait(60)
    doors[1].node.end(signal.SIGKILL)
    wrong = told_as_alone(tellings, alone)
    check(not wrong, f"streams through a door go on when another node is killed {wrong or ''}")

    tellings = [Telling(doors[0], model, topic) for topic in TOPICS]
    for one in tellings:
        one.begun.wait(60)
    server.end(signal.SIGKILL)
    check(doors[0].wait_until(lambda: status_of(doors[0].address, "/health")[0] == 503),
          "its health says that the head is gone")
    status, headers, body = status_of(doors[0].address, "/v1/files")
    check(status == 503 and "Retry-After" in {k.title() for k in headers} and "head" in body,
          f"what needs the head is refused with when to come again: {status} {body}")
    unfinished = sum(one.text is None and one.problem is None for one in tellings)
    again = Server(*arguments, "--set", f"cluster.listen={cluster}", port=server.host_port[1],
                   TANDEM_HOME=home)
    wrong = told_as_alone(tellings, alone)
    check(unfinished > 0 and not wrong,
          f"{unfinished} streams went on after the head was killed and started again {wrong or ''}")
    check(doors[0].wait_until(lambda: status_of(doors[0].address, "/v1/files")[0] == 200),
          "and the rest is passed on again")
    check(doors[0].node.end() == 0, "the node left")
    check(again.end() == 0, "the head ended well")


def passed_on(server, door, model):
    lines = "".join(json.dumps({"messages": [{"role": "user", "content": f"Say {n}."},
                                             {"role": "assistant", "content": f"{n}."}]}) + "\n"
                    for n in range(4))
    client = client_of(door)
    uploaded = client.files.create(file=("lines.jsonl", lines.encode()), purpose="fine-tune")
    check(client_of(server).files.content(uploaded.id).text == lines,
          "a file uploaded at a door lies at the head")
    check(client.files.content(uploaded.id).text == lines, "and is read through the door")
    job = client.fine_tuning.jobs.create(
        model=model, training_file=uploaded.id, hyperparameters={"n_epochs": 1, "batch_size": 4},
        method={"type": "supervised"})
    with urllib.request.urlopen(
            door.address + f"/v1/fine_tuning/jobs/{job.id}/events?stream=true", timeout=120) as live:
        events = live.read().decode()
    done = client.fine_tuning.jobs.retrieve(job.id)
    check(done.status == "succeeded" and "data:" in events,
          f"a job of a door's runs, its events live through it: {done.status}")
    check(door.wait_until(lambda: done.fine_tuned_model in
                          {m.id for m in client.models.list().data}),
          "what it trained is served at the door")
    answer = client.chat.completions.create(model=done.fine_tuned_model, max_tokens=4,
                                            messages=[{"role": "user", "content": "Say 1."}])
    check(answer.model == done.fine_tuned_model, "and answers there")


def keys_hold(folder):
    folder = pathlib.Path(folder)
    home = fresh_home(tempfile.mkdtemp(dir=folder))
    (folder / "user").write_text("a-user-key\n")
    (folder / "admin").write_text("an-admin-key\n")
    server = Server("--devices", CORES[0], "--set", "server.gateways=all", "--set",
                    "cluster.listen=127.0.0.1:0", "--set", f"server.api_keys_file={folder / 'user'}",
                    "--set", f"server.admin_key_file={folder / 'admin'}", TANDEM_HOME=home)
    cluster = json.loads(status_of(server.address, "/admin/nodes", "an-admin-key")[2])
    cluster = cluster["data"][0]["address"]
    door = Door(cluster, "node2", CORES[1], "--host", "0.0.0.0")
    address = re.sub(r"//[^:]+:", "//127.0.0.1:", door.address)
    paths = [("/v1/models", None, 401), ("/v1/models", "another", 401),
             ("/v1/models", "a-user-key", 200), ("/v1/files", None, 401),
             ("/v1/files", "a-user-key", 200), ("/admin/nodes", "a-user-key", 403),
             ("/admin/nodes", None, 401), ("/admin/nodes", "an-admin-key", 200)]
    for path, key, expected in paths:
        for place in (server.address, address):
            status = status_of(place, path, key)[0]
            check(status == expected, f"{path} with {key} at {place}: {status}")
    (folder / "user").write_text("another\n")
    check(door.wait_until(lambda: status_of(address, "/v1/models", "a-user-key")[0] == 401),
          "a key that is taken out at the head opens no door")
    check(door.node.end() == 0, "the node left")
    check(server.end() == 0, "the head ended")

    server = Server("--devices", CORES[0], "--set", "server.gateways=all", "--set",
                    "cluster.listen=127.0.0.1:0", TANDEM_HOME=home)
    node = Node(nodes_of(server)[0]["address"], "--devices", CORES[1], "--name", "node2", "--port",
                "0", "--host", "0.0.0.0")
    check(server.wait_until(lambda: any("no door here" in line for line in node.errors), 60),
          f"without an admin key no door opens beyond loopback: {node.errors}")
    check(server.wait_until(lambda: len(ready(server)) == 2, 60), "its devices serve all the same")
    check(node.end() == 0, "the node left")
    check(server.end() == 0, "the head ended")


def next_head_goes_on(folder):
    home, database = fresh_home(tempfile.mkdtemp(dir=folder)), new_database()

    def head():
        return Head(home, database, QUICKSTART, "--set", "server.gateways=all",
                    cluster=f"127.0.0.1:{free_port()}")

    first = head().ready()
    second = head()
    second.wait_line(r"^standby: \S+ leads \(epoch 1\)")
    door = Door(f"{second.cluster},{first.cluster}", "node2", CORES[1])
    model = client_of(door).models.list().data[0].id
    alone = {topic: story(client_of(first), model, topic) for topic in TOPICS}
    tellings = [Telling(door, model, topic) for topic in TOPICS]
    for one in tellings:
        one.begun.wait(60)
    first.end(signal.SIGKILL)
    unfinished = sum(one.text is None and one.problem is None for one in tellings)
    wrong = told_as_alone(tellings, alone)
    check(unfinished > 0 and not wrong,
          f"{unfinished} streams went on at the head that stood by {wrong or ''}")
    second.ready()
    check(door.wait_until(lambda: status_of(door.address, "/v1/files")[0] == 200),
          "what needs a head is passed on to that one")
    check(door.node.end() == 0, "the node left")
    check(second.end() == 0, "the next head ended well")


with tempfile.TemporaryDirectory() as FOLDER:
    every_door_serves(FOLDER)
    keys_hold(FOLDER)
    if SERVER:
        next_head_goes_on(FOLDER)
    else:
        print("skipped: TANDEM_TEST_POSTGRES names no server for heads that stand by")
checks.end()
