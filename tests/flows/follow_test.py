"""Nodes follow the head that leads. One joined with both addresses, one with the leader's alone, which
tells it of the other. The leader is killed under streams and a job on its devices and the nodes': they
come up at the next head, serve and train there, and the job ends with the parameters of an undisturbed
run, to the bit. Then the next head is frozen, and a third is followed.

TANDEM_TEST_POSTGRES names the server; test.sh starts one."""
import concurrent.futures
import pathlib
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import httpx  # noqa: E402
from support import checks  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import Node  # noqa: E402
from support.heads import (SERVER, Head, free_port, new_database, outcome, psql, stream,  # noqa: E402
                           submit, upload, write_data)
from support.job_events import events, wait_for_step  # noqa: E402
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

KILLED_LIMIT_MS = 3000
FROZEN_LIMIT_MS = 9000  # 5 s of silence, and the next look
EPOCHS = 20


def devices(head):
    """Those that serve at this head."""
    try:
        listed = httpx.get(head.address + "/admin/cluster", timeout=30).json()["devices"]
    except (httpx.HTTPError, ValueError):
        return set()
    return {one["name"] for one in listed if one["ready"]}


def wait_until(condition, deadline_s=60):
    """Each ask is a round trip to a head."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if condition():
            return True
    return False


def served_by_nodes(head):
    """Asks until a node's device has made a token, the head chooses which: when, or None."""
    def tokens():
        listed = httpx.get(head.address + "/admin/cluster", timeout=30).json()["devices"]
        return sum(one["tokens_generated"] for one in listed if one["name"].startswith("node"))

    end = time.monotonic() + 60
    with concurrent.futures.ThreadPoolExecutor() as pool:
        while time.monotonic() < end:
            asked = [pool.submit(stream, head.address, n, 8) for n in range(4)]
            while not all(one.done() for one in asked):
                if tokens() > 0:
                    return time.monotonic()
            if tokens() > 0:
                return time.monotonic()
    return None


def following(head, nodes):
    """Until the nodes' devices serve here: when, by time.monotonic, or None."""
    wanted = {f"{name}/cpu:1-1" for name in nodes}
    return time.monotonic() if wait_until(lambda: wanted <= devices(head)) else None


def leader_knows_of(database, head):
    """The one that leads has read the list with this head in it, and so have its nodes soon."""
    wait_until(lambda: psql(database, "SELECT count(*) FROM tandem_heads WHERE joins_at = "
                                      f"'{head.cluster}'") == "1")
    now = psql(database, "SELECT now()")
    return wait_until(lambda: psql(
        database, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state "
                  f"= 'idle' AND query LIKE 'SELECT joins_at%' AND query_start > '{now}'") == "1")


def killed(first, second, nodes, data, truth, database):
    file = upload(first.address, data)
    job = submit(first.address, file, "once", EPOCHS)
    wait_for_step(first.address, job, 12)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        streams = [pool.submit(stream, first.address, n) for n in range(4)]
        at = time.monotonic()
        first.end(signal.SIGKILL)
        for one in streams:
            one.result()
    leads_ms = round((second.wait_line(r"^leads \(epoch 2\)")[0] - at) * 1000)
    second.ready()
    told = [node.says(f"joined {second.cluster} ") for node in nodes]
    check(all(told), f"both nodes follow to the head that leads: {[n.lines for n in nodes]}")
    token_at = served_by_nodes(second)
    token_ms = round((token_at - at) * 1000) if token_at else None
    there = following(second, ["node2", "node3"])
    check(there is not None, "devices of both serve there")
    check(leads_ms <= KILLED_LIMIT_MS and token_ms is not None,
          f"kill -9 of the head: the next leads after {leads_ms} ms, first token of a node's device "
          f"under it after {token_ms} ms")
    check(submit(second.address, file, "once", EPOCHS) == job, "the same request again is the same job")
    check(outcome(second.address, job) == truth, "the job ends as if nothing had happened")
    widths = [event["message"] for event in events(second.address, job)
              if "on 2 devices" in event["message"]]
    check(len(widths) > 1, f"it lay on devices of the head and a node, under both heads: {widths}")
    check(psql(database, "SELECT count(*) FROM jobs") == "1", "no request was accepted twice")
    return file


def frozen(second, third, nodes, file, truth, database):
    job = submit(second.address, file, "twice", EPOCHS)
    wait_for_step(second.address, job, 12)
    at = time.monotonic()
    second.send(signal.SIGSTOP)
    leads_ms = round((third.wait_line(r"^leads \(epoch 3\)")[0] - at) * 1000)
    third.ready()
    check(all(node.says(f"joined {third.cluster} ") for node in nodes), "nodes leave a frozen head")
    there = following(third, ["node2", "node3"])
    check(there is not None and leads_ms <= FROZEN_LIMIT_MS,
          f"a frozen head is followed after {leads_ms} ms; devices of both nodes serve after "
          f"{round((there - at) * 1000) if there else None} ms")
    second.send(signal.SIGCONT)
    check(second.process.wait(20) == 1, "awake again it writes nothing and ends")
    second.end()
    check(outcome(third.address, job) == truth, "its job ends as if nothing had happened")
    check(psql(database, "SELECT leader_epoch FROM tandem_store") == "3", "one head leads")


def main():
    if not SERVER:
        print("skipped: TANDEM_TEST_POSTGRES names no server (test.sh starts one)")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        model = make_tiny_chat_model(folder / "tiny-chat")
        data = write_data(folder / "data.jsonl")
        home = folder / "home"
        home.mkdir()
        alone = Head(home, new_database(), model).ready()
        truth = outcome(alone.address, submit(alone.address, upload(alone.address, data), "k", EPOCHS))
        check(alone.end() == 0, "an undisturbed run ended")

        database = new_database()

        def head():
            return Head(home, database, model, cluster=f"127.0.0.1:{free_port()}")

        first = head().ready()
        second = head()
        second.wait_line(r"^standby: \S+ leads \(epoch 1\)")
        both = f"{second.cluster},{first.cluster}"
        nodes = [Node(where, "--devices", "cpu:1-1", "--name", name, TANDEM_HOME=str(home))
                 for where, name in ((both, "node2"), (first.cluster, "node3"))]
        check(all(node.says(f"joined {first.cluster} ") for node in nodes),
              "nodes find the head that leads among those they were told of")
        check(following(first, ["node2", "node3"]) is not None, "and serve")
        check(leader_knows_of(database, second), "the leader knows who stands by")
        file = killed(first, second, nodes, data, truth, database)
        third = head()
        third.wait_line(r"^standby: \S+ leads \(epoch 2\)")
        check(leader_knows_of(database, third), "and knows of the third")
        frozen(second, third, nodes, file, truth, database)
        check(all(node.end() == 0 for node in nodes), "the nodes left")
        for node in nodes:
            print("   " + "\n   ".join(node.lines))
        check(third.end() == 0, "the last head ended cleanly")
    checks.end()


if __name__ == "__main__":
    main()
