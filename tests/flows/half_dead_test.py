"""Peers that are there and no good: hundreds of strangers on the cluster's port, a node whose clock is
hours off, and a device that answers heartbeats and does nothing else. Who is honest serves on."""
import json
import os
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import Node, client_of, story, workers_of  # noqa: E402
from support.half_dead import StandingStill, Strangers, device_thread, clock_off_by  # noqa: E402
from support.tandem_server import Server, fresh_home  # noqa: E402
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

HOURS = 7 * 3600


def up(folder, model, *arguments):
    return Server("--set", "cluster.listen=127.0.0.1:0", *arguments, model=model,
                  TANDEM_HOME=fresh_home(tempfile.mkdtemp(dir=folder)))


def cluster_of(server):
    return json.loads(server.get("/admin/nodes"))["data"][0]["address"]


def serving(server):
    return {d["name"] for d in json.loads(server.get("/admin/cluster"))["devices"] if d["ready"]}


def flooded(folder, model):
    with up(folder, model, "--devices", "cpu:0-0") as server:
        host, port = cluster_of(server).rsplit(":", 1)
        words = (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(64), b"\0" * 5)
        with Strangers(host, int(port), 600, words) as strangers:
            began = time.monotonic()
            node = Node(cluster_of(server), "--devices", "cpu:1-1", "--name", "node2")
            said = node.says("joined ")
            check(said is not None, f"{len(strangers.lines)} strangers hold the port's places: a node "
                                    f"joins in {time.monotonic() - began:.1f} s all the same")
            check(server.wait_until(lambda: "node2/cpu:1-1" in serving(server)), "and serves")
            descriptors = len(list(pathlib.Path(f"/proc/{server.process.pid}/fd").iterdir()))
            check(descriptors < 200, f"the head holds {descriptors} descriptors meanwhile")
        check(node.end() == 0, "and leaves")


def clock_is_off(folder, model):
    for off in (HOURS, -HOURS):
        with up(folder, model, "--devices", "cpu:0-0") as server:
            node = Node(cluster_of(server), "--devices", "cpu:1-1", "--name", "node2",
                        **clock_off_by(off, folder))
            check(node.says("joined ") is not None, f"a node whose clock is off by {off // 3600} h joins")
            check(server.wait_until(lambda: "node2/cpu:1-1" in serving(server)), "and serves")
            now = time.time() * 1000
            told = next(n for n in json.loads(server.get("/admin/nodes"))["data"]
                        if n["name"] == "node2")
            check(abs(told["since_ms"] - now) < 600_000, "the head's book goes by the head's clock")
            check(node.end() == 0, "and leaves")


def stands_still(folder, model):
    with up(folder, model, "--devices", "cpu:0-0,cpu:1-1", "--set",
            "devices.isolation=process") as server:
        client = client_of(server)
        name = client.models.list().data[0].id
        alone = story(client, name, "river")
        for _ in range(8):
            story(client, name, "clock")
        worker = workers_of(server.process.pid)["cpu:0-0"]
        with StandingStill(device_thread(worker)):
            began = time.monotonic()
            check(story(client, name, "river") == alone and story(client, name, "river") == alone,
                  f"texts are the same, {time.monotonic() - began:.1f} s later")
        check(server.wait_until(lambda: workers_of(server.process.pid).get("cpu:0-0") not in
                                (None, worker)), "the worker was ended and another one started")
        check(server.wait_until(lambda: serving(server) == {"cpu:0-0", "cpu:1-1"}), "which serves")
        lost = [e["why"] for e in json.loads(server.get("/admin/leases/history?limit=100"))["data"]
                if e["kind"] == "device_lost"]
        check(any("made no progress" in why for why in lost), f"the history says why: {lost}")
        check(any("device cpu:0-0: step" in line for line in server.errors),
              "the log names device and step")


def main():
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        model = make_tiny_chat_model(folder / "tiny-chat")
        flooded(folder, model)
        clock_is_off(folder, model)
        stands_still(folder, model)
    checks.end()


if __name__ == "__main__":
    main()
