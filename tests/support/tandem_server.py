"""A `tandem up` for a test: started on a free port, waited for, ended by process id."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("TANDEM_BINARY", SOURCE / "build" / "tandem"))
HOME = pathlib.Path(os.environ.get("TANDEM_HOME", pathlib.Path.home() / ".tandem"))
QUICKSTART = HOME / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
START_DEADLINE_S = 60


def environment(**extra):
    return {k: v for k, v in os.environ.items() if not k.startswith("TANDEM_")} | {
        "TANDEM_HOME": str(HOME)} | extra


def run_tandem(*arguments, stdin=None, timeout=60, **extra):
    """One command to its end: (exit status, stdout, stderr)."""
    done = subprocess.run([str(BINARY), *map(str, arguments)], input=stdin, text=True,
                          capture_output=True, timeout=timeout, env=environment(**extra))
    return done.returncode, done.stdout, done.stderr


def fresh_home(folder):
    """A TANDEM_HOME below `folder` with the quickstart model and nothing else; its path."""
    models = pathlib.Path(folder) / "home" / "models"
    models.mkdir(parents=True)
    (models / QUICKSTART.name).symlink_to(QUICKSTART)
    return str(models.parent)


class Server:
    def __init__(self, *arguments, model=QUICKSTART, port=0, **extra):
        self.process = subprocess.Popen(
            [str(BINARY), "up", "--port", str(port), "--model", str(model), *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**extra))
        self.errors = []
        self._drain = threading.Thread(target=self._read_errors, daemon=True)
        self._drain.start()
        watchdog = threading.Timer(START_DEADLINE_S, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                found = re.match(r"ready (\S+) in (\d+) ms", line)
                if found:
                    self.address, self.ready_ms = found.group(1), int(found.group(2))
                    break
            else:
                self._drain.join()
                raise RuntimeError("tandem up did not become ready:\n" + "".join(self.errors))
        finally:
            watchdog.cancel()
        self._rest = threading.Thread(target=self.process.stdout.read, daemon=True)
        self._rest.start()

    def _read_errors(self):
        for line in self.process.stderr:
            self.errors.append(line)

    @property
    def host_port(self):
        host, port = self.address.split("//")[1].rsplit(":", 1)
        return host, int(port)

    def get(self, path):
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return answer.read().decode()

    def post(self, path, body):
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(),
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def metric(self, name):
        """The sum of a metric's series."""
        values = [float(line.rsplit(" ", 1)[1]) for line in self.get("/metrics").splitlines()
                  if re.match(re.escape(name) + r"(\{| )", line)]
        if not values:
            raise KeyError(name)
        return sum(values)

    def wait_until(self, condition, deadline_s=20):
        """Asks the server itself until the condition holds; each ask is a round trip."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            if condition():
                return True
        return False

    def idle(self):
        return (self.metric("tandem_requests_inside") == 0
                and self.metric("tandem_requests_running") == 0
                and self.metric("tandem_kv_blocks_free") == self.metric("tandem_kv_blocks_total"))

    def resident_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024

    def end(self, how=signal.SIGTERM, timeout=40):
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            for reader in (self._drain, self._rest):
                reader.join()
            self.process.stdout.close()
            self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.end()
        if kind and self.errors:
            sys.stderr.write("--- the server's stderr ---\n" + "".join(self.errors[-40:]))
