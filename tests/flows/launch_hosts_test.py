"""A cluster whose nodes are started by ssh, over a real sshd on loopback: it heals, scales and ends,
and every host that cannot be had is named with the reason."""
import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks, readme  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import TOPICS, Streams, client_of, story  # noqa: E402
from support.launched import Launched, alive  # noqa: E402
from support.ssh_server import SshServer  # noqa: E402
from support.tandem_server import BINARY, fresh_home, run_tandem  # noqa: E402


def hosts_file(folder, *lines):
    path = pathlib.Path(tempfile.mkdtemp(dir=folder)) / "hosts.txt"
    path.write_text("# of this test\n" + "".join(line + "\n" for line in lines))
    return path


def another_build(folder):
    commit = next(line.split()[-1] for line in run_tandem("version")[1].splitlines()
                  if line.startswith("commit")).encode()
    path = pathlib.Path(folder) / "tandem_of_another_commit"
    path.write_bytes(BINARY.read_bytes().replace(commit, b"0" * len(commit)))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def elsewhere(launched, name):
    """The process that a node has on its host."""
    record = launched.record()
    names = [recipe["name"] for recipe in record["recipes"]]
    return int(record["nodes"][names.index(name)]["elsewhere"])


def as_the_readme_says(folder, server):
    lines = readme.block("text hosts.txt").replace("10.0.0.2", "good devices=cpu:1-1")
    hosts = hosts_file(folder, *lines.splitlines())
    words = readme.command("sh hosts", hosts=hosts, listen="127.0.0.1:0")
    launched = Launched(folder, *words[1:], "--ssh", server.ssh, "--devices", "cpu:0-0", "--port", 0)
    check(launched.nodes_up() == {"head", "good"}, f"as the README says: {words}")
    check(launched.scale(0)[0] == 0 and launched.wait() == 0, "and scale 0 ends it")


def heals_and_scales(folder, server):
    hosts = hosts_file(folder, "good devices=cpu:1-1", "also-good devices=cpu:1-1 name=third")
    launched = Launched(folder, "--hosts", hosts, "--nodes", 2, "--ssh", server.ssh, "--listen",
                        "127.0.0.1:0", "--devices", "cpu:0-0", "--port", 0)
    check(launched.nodes_up() == {"head", "good"}, "the head here, and the first host")
    check(launched.wait_until(lambda: "good/cpu:1-1" in launched.serving()), "which serves")
    secret = pathlib.Path(launched.home, "secret").read_text().strip().encode()
    said = subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True).stdout
    check(b"join" in said and secret not in said, "the secret stands in no command line")
    client = client_of(launched)
    model = client.models.list().data[0].id
    alone = {topic: story(client, model, topic) for topic in TOPICS}
    with Streams(launched, model, alone) as streams:
        status, out, err = launched.scale(3)
        check(status == 0 and launched.nodes_up() == {"head", "good", "third"},
              f"scale 3 takes the next host: {out.splitlines()} {err}")
        os.kill(elsewhere(launched, "good"), signal.SIGKILL)
        check(launched.says("good: .*; starting it again") is not None and
              launched.says("good: joined ", 2) is not None, "a node that dies there starts again")
        old = elsewhere(launched, "third")
        os.kill(launched.processes()["third"], signal.SIGKILL)
        check(launched.says("third: joined ", 2) is not None and not alive(old),
              "one whose connection is lost leaves, and another takes its name")
        status, out, err = launched.scale(2)
        check(status == 0 and launched.nodes_up() == {"head", "good"},
              f"scale 2: {out.splitlines()} {err}")
        wanted = streams.told() + 4
        launched.wait_until(lambda: streams.told() >= wanted or streams.problems(), 120)
    check(not streams.problems() and streams.wrong() == 0,
          f"{streams.told()} texts, none wrong, none lost {streams.problems() or ''}")
    there = elsewhere(launched, "good")
    check(launched.scale(4)[0] == 2, "more than there are hosts is refused")
    check(launched.end() == 0 and not alive(there), "all end, there too")
    check(any("good: left" in line for line in launched.lines), "in order")


def all_die_but_there(folder, server):
    hosts = hosts_file(folder, "good devices=cpu:1-1")
    words = ("--hosts", hosts, "--ssh", server.ssh, "--listen", "127.0.0.1:0", "--devices", "cpu:0-0",
             "--port", 0)
    launched = Launched(folder, *words)
    old, here = elsewhere(launched, "good"), launched.processes().values()
    launched.end(signal.SIGKILL)
    for pid in here:
        os.kill(pid, signal.SIGKILL)
    check(launched.wait_until(lambda: not any(alive(pid) for pid in here)) and alive(old),
          "when this machine fails a node is left on its host")
    again = Launched(folder, *words, home=launched.home)
    check(again.nodes_up() == {"head", "good"} and not alive(old), "the next launch replaces it")
    check(again.end() == 0, "and all end")


def says_why(folder, server):
    hosts = hosts_file(folder, "good devices=cpu:1-1", "closed", "no-key", "stranger",
                       f"also-good tandem={another_build(folder)} name=other devices=cpu:1-1",
                       "also-good tandem=/nowhere/tandem name=missing")
    launched = Launched(folder, "--hosts", hosts, "--ssh", server.ssh, "--listen", "127.0.0.1:0",
                        "--devices", "cpu:0-0", "--port", 0)
    for name, words in (("closed", "Connection refused"), ("no-key", "ssh-copy-id"),
                        ("stranger", "connect to it by hand once"), ("other", "build"),
                        ("missing", "no program /nowhere/tandem")):
        said = launched.says(f"{name}: stays down: ")
        check(said is not None and words in said.string,
              f"{name}: {said.string if said else launched.text()}")
    check(launched.says("ready .*, 2 of 7 nodes up") is not None, "the others are up")
    check(launched.end() == 0, "and end")


def refusals(folder, server):
    home = fresh_home(tempfile.mkdtemp(dir=folder))
    for lines, options, words in (
            (["good two"], [], ":2: 'two'"),
            (["no-such-host.invalid"], [], "--listen"),
            (["good"], ["--nodes", 5], "there can be 2")):
        status, _, err = run_tandem("launch", "--hosts", hosts_file(folder, *lines), "--ssh",
                                    server.ssh, *options, *(["--listen", "127.0.0.1:0"] if options
                                                            else []), TANDEM_HOME=home)
        check(status in (1, 2) and words in err and err.count("\n") == 1, f"{lines}: {err.strip()}")


if not pathlib.Path("/usr/sbin/sshd").exists():
    print("skipped: no /usr/sbin/sshd (test.sh installs it)")
    sys.exit(77)
with tempfile.TemporaryDirectory() as FOLDER:
    (pathlib.Path(FOLDER) / "sshd").mkdir()
    SERVER = SshServer(pathlib.Path(FOLDER) / "sshd")
    refusals(FOLDER, SERVER)
    as_the_readme_says(FOLDER, SERVER)
    heals_and_scales(FOLDER, SERVER)
    all_die_but_there(FOLDER, SERVER)
    says_why(FOLDER, SERVER)
    SERVER.end()
checks.end()
