"""A cluster in an allocation of a real Slurm: submitted, scaled, healed and ended; and one in an
allocation that is there already."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks, readme  # noqa: E402
from support.checks import check  # noqa: E402
from support.cluster import client_of, story  # noqa: E402
from support.slurm import DAEMONS, Slurm, daemon  # noqa: E402
from support.tandem_server import BINARY, environment, fresh_home, run_tandem  # noqa: E402

import urllib.request  # noqa: E402


def wait_for(condition, deadline_s=90):
    """Each look asks Slurm, or reads what the job wrote."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
    return None


class Served:
    """What client_of needs."""

    def __init__(self, address):
        self.address = address

    def nodes_up(self):
        with urllib.request.urlopen(self.address + "/admin/nodes", timeout=30) as answer:
            return {n["name"] for n in json.load(answer)["data"] if n["state"] == "up"}


def says(log, pattern):
    def look():
        return re.search(pattern, log.read_text(), re.M) if log.exists() else None
    found = wait_for(look)
    if found is None:
        print(log.read_text() if log.exists() else f"no {log}")
    return found


def submitted(folder, slurm):
    home = fresh_home(tempfile.mkdtemp(dir=folder))
    extra = dict(slurm.environment, TANDEM_HOME=home)
    words = readme.command("sh slurm", nodes=2)
    words[words.index("--sbatch=--partition=long")] = "--sbatch=--partition=test"
    status, out, err = run_tandem(*words, "--port", 0, "--devices", "cpu:0-0",
                                  "--sbatch=--comment=hello", **extra)
    job = re.match(r"job (\d+) is submitted", out)
    check(status == 0 and job is not None, f"it is submitted: {out.splitlines()} {err}")
    job = job.group(1)
    log = pathlib.Path(home) / "launch" / f"slurm-{job}.log"
    ready = says(log, r"^ready (\S+) in \d+ ms, 2 of 2 nodes up")
    check(ready is not None, f"its log says where: {ready and ready.group(0)}")
    about = slurm.run("scontrol", "show", "job", job)
    check("Comment=hello" in about and "TimeLimit=08:00:00" in about,
          "sbatch has the options that were passed on")
    server = Served(ready.group(1))
    check(server.nodes_up() == {"head", "node2"}, "two nodes are up")
    steps = slurm.run("squeue", "-h", "-s", "-j", job, "-o", "%j %N")
    check("head n1" in steps and "node2 n2" in steps, f"on two hosts of Slurm: {steps.split()}")
    client = client_of(server)
    check(len(story(client, client.models.list().data[0].id, "river")) > 0, "and it answers")
    status, out, err = run_tandem("scale", 1, **extra)
    check(status == 0 and server.nodes_up() == {"head"}, f"scale 1: {out.splitlines()} {err}")
    status, out, err = run_tandem("scale", 2, **extra)
    check(status == 0 and server.nodes_up() == {"head", "node2"},
          f"scale 2: {out.splitlines()} {err}")
    step = wait_for(lambda: re.search(r"(\S+) node2", slurm.run("squeue", "-h", "-s", "-o", "%i %j")))
    slurm.run("scancel", "--signal=KILL", step.group(1))
    check(says(log, r"^node2: .*; starting it again in") is not None and wait_for(
        lambda: server.nodes_up() == {"head", "node2"}) is not None,
        "a step that is killed starts again")
    status, out, err = run_tandem("scale", 0, **extra)
    check(status == 0, f"scale 0: {out.splitlines()} {err}")
    over = wait_for(lambda: not slurm.run("squeue", "-h").strip())
    check(over is not None and says(log, "^all nodes have ended$") is not None,
          "then the job is over, in order")


def inside(folder, slurm):
    home = fresh_home(tempfile.mkdtemp(dir=folder))
    allocated = subprocess.Popen(
        ["salloc", "--quiet", "--nodes=2", "--ntasks-per-node=1", str(BINARY), "launch", "--slurm",
         "--port", "0", "--devices", "cpu:0-0"], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT, start_new_session=True,
        env=environment(**slurm.environment, TANDEM_HOME=home))
    lines = []
    for line in allocated.stdout:
        lines.append(line.rstrip())
        if line.startswith("ready "):
            break
    check("2 of 2 nodes up" in lines[-1], f"inside an allocation: {lines}")
    launcher = int((pathlib.Path(home) / "launch" / "lock").read_text())
    os.kill(launcher, signal.SIGTERM)
    rest = allocated.stdout.read().splitlines()
    check(allocated.wait(60) == 0 and rest[-1] == "all nodes have ended", f"SIGTERM ends it: {rest}")


def refusals(folder, slurm):
    home = fresh_home(tempfile.mkdtemp(dir=folder))
    for options, words in ((["--nodes", 1, "--sbatch=--no-such-option"], "unrecognized option"), ([], "--nodes"),
                           (["--nodes", 1, "--sbatch=--partition=none"], "partition")):
        status, _, err = run_tandem("launch", "--slurm", *options, TANDEM_HOME=home,
                                    **slurm.environment)
        check(status in (1, 2) and words in err and err.count("\n") == 1, f"{options}: {err.strip()}")


if not all(daemon(name) for name in DAEMONS):
    print("skipped: no Slurm here (test.sh installs slurm-wlm and munge)")
    sys.exit(77)
with tempfile.TemporaryDirectory() as FOLDER:
    (pathlib.Path(FOLDER) / "slurm").mkdir()
    SLURM = Slurm(pathlib.Path(FOLDER) / "slurm")
    try:
        refusals(FOLDER, SLURM)
        submitted(FOLDER, SLURM)
        inside(FOLDER, SLURM)
    finally:
        SLURM.end()
checks.end()
