"""A cluster launched on this machine grows, shrinks and heals under streams; its launcher may die."""
import json
import os
import pathlib
import signal
import stat
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import TOPICS, Program, Streams, client_of, story  # noqa: E402
from support.launched import Launched, alive  # noqa: E402
from support.tandem_server import fresh_home, run_tandem  # noqa: E402


def told(launched, streams, more):
    wanted = streams.told() + more
    launched.wait_until(lambda: streams.told() >= wanted or streams.problems(), 180)


def grows_shrinks_and_heals(folder):
    launched = Launched(folder, "--local", 2, "--port", 0)
    check(launched.nodes_up() == {"head", "node2"}, "two nodes are up")
    check(launched.wait_until(lambda: launched.serving() == {"cpu:0-0", "node2/cpu:1-1"}),
          "each serves with its share of the cores")
    secret = pathlib.Path(launched.home, "secret")
    check(stat.S_IMODE(secret.stat().st_mode) == 0o600, "the secret is made for its owner alone")
    commands = [pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
                for pid in launched.processes().values()]
    check(not any(secret.read_bytes().strip() in words for words in commands),
          "and stands in no command line")

    client = client_of(launched)
    model = client.models.list().data[0].id
    alone = {topic: story(client, model, topic) for topic in TOPICS}
    with Streams(launched, model, alone) as streams:
        status, out, err = launched.scale(3)
        check(status == 0 and "node3: up" in out, f"scale 3: {out.splitlines()} {err}")
        check(launched.nodes_up() == {"head", "node2", "node3"}, "three nodes are up")
        told(launched, streams, 4)
        status, out, err = launched.scale(2, "--json")
        check(status == 0 and [n["name"] for n in json.loads(out)["nodes"]] == ["head", "node2"],
              f"scale 2 --json: {out.strip()} {err}")
        before = launched.processes()["node2"]
        os.kill(before, signal.SIGKILL)
        check(launched.says(r"node2: killed by signal 9 .*; starting it again in \d+ ms \(1 of 5\)"),
              "a node that dies is named with how")
        check(launched.says("node2: joined ", 2) is not None, "and started again")
        told(launched, streams, 4)
    print(streams.gap_table())
    check(not streams.problems() and streams.wrong() == 0 and streams.told() > 0,
          f"{streams.told()} texts, none wrong, none lost {streams.problems() or ''}")

    status, out, err = run_tandem("drain", "node2", "--address", launched.address)
    check(status == 0 and launched.says("node2: ended, as it was drained by hand: 1 node wanted"),
          f"a node drained by hand stays away: {launched.lines[-1]}")
    status, _, err = launched.scale(65)
    check(status == 2 and "0 to 64 nodes" in err, f"more than it can have: {err.strip()}")
    check(launched.scale(2)[0] == 0 and launched.nodes_up() == {"head", "node2"},
          "an order by hand brings it back")
    other = Program("launch", "--local", "1", "--port", "0", TANDEM_HOME=launched.home)
    check(other.wait() == 1 and "tandem scale" in other.errors[0],
          f"one cluster from one home: {other.errors}")
    pids = launched.processes().values()
    check(launched.end(signal.SIGINT) == 0, "Ctrl-C ends the launcher with status 0")
    order = [line for line in launched.lines if line.endswith(": ended")][-2:]
    check(order == ["head: ended", "node2: ended"], f"the head drained first: {order}")
    check(not any(alive(pid) for pid in pids), "no process is left over")
    status, _, err = launched.scale(1)
    check(status == 1 and "tandem launch" in err, f"then there is nothing to scale: {err.strip()}")


def head_dies(folder):
    launched = Launched(folder, "--local", 2, "--port", 0)
    os.kill(launched.processes()["head"], signal.SIGKILL)
    check(launched.says("head: ready ", 2) is not None, "a head that dies is started again")
    check(launched.wait_until(lambda: launched.nodes_up() == {"head", "node2"}, 60),
          "at the same addresses: its node is back")
    check(launched.end() == 0, "and all end")


def launcher_dies(folder):
    home = fresh_home(tempfile.mkdtemp(dir=folder))
    status, out, err = run_tandem("launch", "--local", 2, "--port", 0, "--detach", TANDEM_HOME=home)
    check(status == 0 and "in the background" in out, f"--detach: {out.splitlines()} {err}")
    launched = Launched(folder, "--help", home=home, ready=False)  # for its looks
    launched.wait()
    launched.address = launched.record()["http_address"]
    before = launched.processes()
    check(launched.nodes_up() == {"head", "node2"}, "both nodes are up")
    launcher = int(pathlib.Path(home, "launch", "lock").read_text())
    os.kill(launcher, signal.SIGKILL)
    launched.wait_until(lambda: not alive(launcher))
    check(launched.nodes_up() == {"head", "node2"}, "the launcher's death harms no node")
    again = Program("launch", "--local", "1", "--port", "0", TANDEM_HOME=home)
    check(again.wait() == 1 and "2 nodes" in again.errors[0], f"no second cluster: {again.errors}")
    status, out, err = launched.scale(3)
    now = launched.processes()
    check(status == 0 and len(now) == 3 and all(now[name] == pid for name, pid in before.items()),
          f"scale takes the nodes over and adds one: {out.splitlines()} {err}")
    launcher = int(pathlib.Path(home, "launch", "lock").read_text())
    for pid in (launcher, now["head"]):
        os.kill(pid, signal.SIGKILL)
    launched.wait_until(lambda: not alive(launcher) and not alive(now["head"]))
    status, out, err = launched.scale(2)
    check(status == 0 and launched.nodes_up() == {"head", "node2"} and
          launched.processes()["node2"] == before["node2"],
          f"a head that died meanwhile comes back where it was: {out.splitlines()} {err}")
    now = launched.processes()
    status, out, err = launched.scale(0)
    check(status == 0 and "all nodes have ended" in out, f"scale 0: {out.splitlines()} {err}")
    check(not any(alive(pid) for pid in now.values()), "no process is left over")


def refusals(folder):
    home = fresh_home(tempfile.mkdtemp(dir=folder))
    for words, said, what in (
            (["--local", 2, "no-such-model"], 1, "no-such-model"),
            (["--local", 0], 2, "--local"),
            ([], 2, "--local"),
            (["--local", 2, "--devices", "cpu:0-0"], 1, "cannot be dealt to 2 nodes")):
        status, _, err = run_tandem("launch", *words, TANDEM_HOME=home)
        check(status == said and what in err and err.count("\n") == 1, f"{words}: {err.strip()}")
    launched = Launched(folder, "--local", 2, "--devices", "cpu:0-0,cpu:4000", "--port", 0)
    check(launched.says("node2: stays down: .*core 4000") is not None and
          launched.says("ready .* 1 of 2 nodes up") is not None, "a node that cannot start is named")
    check(launched.end() == 0, "the others run, and end")


with tempfile.TemporaryDirectory() as FOLDER:
    refusals(FOLDER)
    grows_shrinks_and_heals(FOLDER)
    head_dies(FOLDER)
    launcher_dies(FOLDER)
checks.end()
