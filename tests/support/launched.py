"""A cluster that `tandem launch` started from a home of its own."""
import json
import pathlib
import re
import signal
import tempfile
import time
import urllib.request

from support.cluster import Program
from support.tandem_server import fresh_home, run_tandem


class Launched(Program):
    """A `tandem launch` in the foreground that has become ready."""

    def __init__(self, folder, *arguments, home=None, ready=True, **extra):
        self.home = home or fresh_home(tempfile.mkdtemp(dir=folder))
        super().__init__("launch", *arguments, TANDEM_HOME=self.home, **extra)
        self.address = None
        if ready:
            said = self.says(r"ready (\S+) in \d+ ms, (\d+) of (\d+) nodes up")
            if said is None:
                self.end(signal.SIGTERM)
                raise RuntimeError("launch did not become ready:\n" + self.text())
            self.address = said.group(1)

    def says(self, pattern, count=1, deadline_s=90):
        return super().says(pattern, count, deadline_s)

    def text(self):
        logs = [f"--- {log.name}\n{log.read_text()}" for log in self.logs()]
        return "\n".join([*self.lines, *self.errors, *logs])

    def logs(self):
        return sorted(pathlib.Path(self.home, "launch").glob("*.log"))

    def record(self):
        return json.loads(pathlib.Path(self.home, "launch", "cluster.json").read_text())

    def processes(self):
        """{name: pid} of the nodes that run."""
        record = self.record()
        return {recipe["name"]: node["pid"]
                for recipe, node in zip(record["recipes"], record["nodes"]) if node["pid"]}

    def get(self, path):
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return json.load(answer)

    def nodes_up(self):
        return {node["name"] for node in self.get("/admin/nodes")["data"] if node["state"] == "up"}

    def serving(self):
        return {d["name"] for d in self.get("/admin/cluster")["devices"] if d["ready"]}

    def wait_until(self, condition, deadline_s=30):
        """Each look asks the server, or reads what the launcher wrote."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            if condition():
                return True
        return False

    def scale(self, count, *options):
        return run_tandem("scale", count, *options, TANDEM_HOME=self.home, timeout=120)


def alive(pid):
    """Does this process run?"""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return not re.search(r"\) Z ", stat)
