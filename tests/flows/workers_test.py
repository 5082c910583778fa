"""Each device in a worker process of its own: kill -9 of a worker costs a pause, never a request, a
gap or a repeat; the worker comes back, up to a limit.

TANDEM_KILLS sets how many kills (8)."""
import concurrent.futures
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import (TOPICS, Node, Streams, client_of, story,  # noqa: E402
                             workers_of, zombies_of)
from support.tandem_server import Server as AnyServer  # noqa: E402
from support.tandem_server import fresh_home, run_tandem  # noqa: E402

KILLS = int(os.environ.get("TANDEM_KILLS", "8"))
DEVICES = ["cpu:0-0", "cpu:1-1"]
OPTIONS = ["--devices", ",".join(DEVICES), "--set", "devices.isolation=process"]
RESTARTS = 5


def Server():
    return AnyServer(*OPTIONS, TANDEM_HOME=fresh_home(tempfile.mkdtemp(dir=FOLDER)))


def serving(server):
    cluster = json.loads(server.get("/admin/cluster"))
    return {d["name"] for d in cluster["devices"] if d["ready"]}


def killed_under_streams():
    chance = random.Random(5)
    with Server() as server:
        client = client_of(server)
        model = client.models.list().data[0].id
        alone = {topic: story(client, model, topic) for topic in TOPICS}
        back = []
        with Streams(server, model, alone) as streams:
            for kill in range(KILLS):
                device = DEVICES[kill % 2]
                told = streams.told() + chance.randint(1, 6)
                server.wait_until(lambda: streams.told() >= told, 120)
                before = workers_of(server.process.pid)
                began = time.monotonic()
                os.kill(before[device], signal.SIGKILL)
                good = server.wait_until(
                    lambda: workers_of(server.process.pid).get(device, before[device])
                    != before[device] and serving(server) == set(DEVICES), 30)
                back.append(round(1000 * (time.monotonic() - began)))
                if not good:
                    print(f"   {device} did not come back after kill {kill}", flush=True)
                    break
        print(streams.gap_table())
        print(f"   killed to serving again in {back} ms (pauses of 100 ms and more among them)")
        check(len(back) == KILLS and good, f"{len(back)} workers were killed and came back")
        check(not streams.problems(), f"no request failed {streams.problems() or ''}")
        check(streams.wrong() == 0 and streams.told() > 0,
              f"{streams.told()} texts are those of an undisturbed run ({streams.wrong()} are not)")
        lost = [e for e in json.loads(server.get("/admin/leases/history?limit=1000"))["data"]
                if e["kind"] == "device_lost"]
        unclear = [e["why"] for e in lost if "killed by signal 9" not in e["why"]]
        check(len(lost) == KILLS and not unclear,
              f"each of {len(lost)} losses says how the process ended {unclear or ''}")
        check(zombies_of(server.process.pid) == 0, "no dead worker is left over")
        workers = workers_of(server.process.pid)
        check(server.end() == 0, "the head drained and ended")
        check(not any(pathlib.Path(f"/proc/{pid}").exists() for pid in workers.values()),
              "its workers ended with it")


def killed_too_often():
    with Server() as server:
        device = DEVICES[0]
        for _ in range(RESTARTS + 1):
            server.wait_until(lambda: device in workers_of(server.process.pid), 30)
            os.kill(workers_of(server.process.pid)[device], signal.SIGKILL)
            server.wait_until(lambda: device not in workers_of(server.process.pid))
        stays = server.wait_until(
            lambda: any(f"{device} died {RESTARTS + 1} times in a row and stays down" in line
                        for line in server.errors))
        check(stays, f"after {RESTARTS} restarts the log says that the device stays down")
        client = client_of(server)
        model = client.models.list().data[0].id
        check(len(story(client, model, "river")) > 0, "the other device goes on serving")


def frozen():
    with Server() as server:
        device = DEVICES[0]
        pid = workers_of(server.process.pid)[device]
        client = client_of(server)
        model = client.models.list().data[0].id
        alone = {topic: story(client, model, topic) for topic in TOPICS}
        with Streams(server, model, alone) as streams:
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            back = server.wait_until(
                lambda: workers_of(server.process.pid).get(device, pid) != pid
                and serving(server) == set(DEVICES), 60)
            print(f"   frozen to serving again in {time.monotonic() - began:.1f} s")
            told = streams.told() + 8
            server.wait_until(lambda: streams.told() >= told, 120)
        print(streams.gap_table())
        check(back, "a frozen worker is ended and started again")
        check(not streams.problems() and streams.wrong() == 0,
              f"no request failed, no text is wrong {streams.problems() or ''}")


def keys_go_along():
    """A request that leaves a node which drains goes on with the keys and values that it had."""
    home = fresh_home(tempfile.mkdtemp(dir=FOLDER))
    with AnyServer("--devices", DEVICES[0], "--set", "cluster.listen=127.0.0.1:0",
                   TANDEM_HOME=home) as server:
        address = json.loads(server.get("/admin/nodes"))["data"][0]["address"]
        node = Node(address, "--devices", DEVICES[1], "--name", "node2", TANDEM_HOME=home)
        check(server.wait_until(lambda: len(serving(server)) == 2, 30), "both workers serve")
        client = client_of(server)
        model = client.models.list().data[0].id
        numbers = ", ".join(map(str, range(400)))
        began = threading.Barrier(3)

        def tell(animal, first):
            pieces = client.completions.create(
                model=model, prompt=f"Once upon a time a {animal} counted: {numbers}",
                max_tokens=200, temperature=0, stream=True)
            text = ""
            for n, chunk in enumerate(pieces):
                text += chunk.choices[0].text
                if first and n == 10:
                    began.wait()
            return text

        def at_head():
            devices = json.loads(server.get("/admin/cluster"))["devices"]
            return next(d for d in devices if d["name"] == DEVICES[0])

        animals = ("fox", "bear")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            telling = [pool.submit(tell, animal, True) for animal in animals]
            began.wait()
            before = at_head()
            status, out, err = run_tandem("drain", "node2", "--address", server.address)
            check(status == 0, f"tandem drain: {out.strip()}{err.strip()}")
            moved = at_head()
            texts = [one.result() for one in telling]
        check(node.wait() == 0, "the drained node ends with status 0")
        read = at_head()["prompt_tokens_computed"] - before["prompt_tokens_computed"]
        check(before["running"] == 1 and moved["running"] == 2,
              f"one request came to the head's worker ({before['running']}, {moved['running']})")
        check(before["prompt_tokens_computed"] > 1000 and read < 50,
              f"of {before['prompt_tokens_computed']} tokens of a prompt {read} were read again")
        check(texts == [tell(animal, False) for animal in animals],
              "the texts are those of an undisturbed run")


def head_killed():
    server = Server()
    workers = workers_of(server.process.pid)
    server.end(signal.SIGKILL)
    end = time.monotonic() + 10
    while time.monotonic() < end and any(
            pathlib.Path(f"/proc/{pid}").exists() for pid in workers.values()):
        pass
    check(len(workers) == 2 and not any(
        pathlib.Path(f"/proc/{pid}").exists() for pid in workers.values()),
        "the workers of a head that was killed end with it")


with tempfile.TemporaryDirectory() as FOLDER:
    killed_under_streams()
    keys_go_along()
    killed_too_often()
    frozen()
    head_killed()
checks.end()
