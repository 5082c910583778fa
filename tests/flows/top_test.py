"""`tandem top` in a real terminal (tmux): two devices, a job and streams. What a person sees at two
sizes stays in build/screenshots; the screen follows the terminal's size, says when the server is
gone, and leaves the terminal as it was."""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks  # noqa: E402
from support.checks import check  # noqa: E402
from support.job_events import start_lasting_job, wait_for_step  # noqa: E402
from support.tandem_server import BINARY, Server, environment, fresh_home  # noqa: E402

SKIPPED = 77
PICTURES = BINARY.parent / "screenshots"
PATIENCE_S = 60
DEVICES = ["cpu:0-0", "cpu:1-1"]
PROMPT = "someone@here$ "


class Terminal:
    """A shell in tmux, on a server of its own."""

    def __init__(self, folder, columns, rows):
        self._socket = str(folder / "tmux")
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", rows,
                   f"env -i PATH=/usr/bin:/bin TERM=tmux-256color LANG=C.UTF-8 PS1='{PROMPT}' sh -i")

    def _tmux(self, *arguments):
        return subprocess.run(["tmux", "-u", "-S", self._socket, *map(str, arguments)], check=True,
                              text=True, capture_output=True, env=environment()).stdout

    def type(self, *keys):
        self._tmux("send-keys", *keys)

    def resize(self, columns, rows):
        self._tmux("resize-window", "-x", columns, "-y", rows)

    def screen(self, colours=False):
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def wait_for(self, *seen):
        """The screen once all of these patterns are on it; None when that does not come."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:  # each look is a process of its own
            screen = self.screen()
            if all(re.search(pattern, screen, re.M) for pattern in seen):
                return screen
        print(f"waited in vain for {seen}:\n{screen}", flush=True)
        return None

    def close(self):
        self._tmux("kill-server")


def keep_talking(client, enough):
    model = client.models.list().data[0].id
    while not enough.is_set():
        client.completions.create(model=model, prompt="Once upon a time", max_tokens=24)


def looks_right(screen, columns, rows, where):
    lines = screen.rstrip("\n").split("\n")
    check(len(lines) <= rows and max(map(len, lines)) <= columns,
          f"{where}: {len(lines)} lines of at most {max(map(len, lines))} columns")
    for device in DEVICES:
        row = next((line for line in lines if line.startswith(device)), "")
        check(re.search(r"(serve|shared|train)", row) and re.search(r"\d+%", row)
              and re.search("[█▓▒]", row), f"{where}: {device} by holder, with its time line: {row!r}")


def watch(server, terminal, job):
    terminal.type(f"{BINARY} top --address {server.address} --interval 0.2 --minutes 1", "Enter")
    screen = terminal.wait_for(r"^tandem at http", r"training [1-9]\d* tok/s",
                               r"serving [1-9]\d* tok/s", r"first token \d", job[:12])
    check(screen, "the screen shows both sides at work, latencies, and the job")
    looks_right(screen or "", 120, 30, "120 by 30")
    (PICTURES / "top-120x30.txt").write_text(terminal.screen(colours=True))
    check("\x1b[34m" in terminal.screen(colours=True), "devices that serve are blue")

    server.post("/admin/assign", {"device": DEVICES[0], "role": "serve"})
    server.post("/admin/assign", {"device": DEVICES[1], "role": "train"})
    check(terminal.wait_for(rf"^{DEVICES[0]} +serve\*", rf"^{DEVICES[1]} +train\*", r"\* by hand"),
          "orders by hand are seen")
    terminal.resize(56, 18)
    narrow = terminal.wait_for(r"^ttft ", rf"^{DEVICES[1]} +train +\d+%", r"^JOB ")
    check(narrow, "a narrow terminal gets what matters most")
    looks_right(narrow or "", 56, 18, "56 by 18")
    (PICTURES / "top-56x18.txt").write_text(terminal.screen(colours=True))
    terminal.resize(120, 30)
    check(terminal.wait_for("HELD BY"), "and the whole again when it is wide again")


def main():
    if not shutil.which("tmux"):
        print("skipped: no tmux (Debian's package of that name, which test.sh installs)")
        sys.exit(SKIPPED)
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        terminal = Terminal(folder, 120, 30)
        try:
            with Server("--devices", ",".join(DEVICES), "--set", "model.kv_memory=256MiB",
                        TANDEM_HOME=fresh_home(folder)) as server:
                client, job = start_lasting_job(server, folder)
                check(wait_for_step(server.address, job, 1), "the job trains")
                enough = threading.Event()
                talk = threading.Thread(target=keep_talking, args=(client, enough))
                talk.start()
                try:
                    watch(server, terminal, job)
                finally:
                    enough.set()
                    talk.join()
                client.fine_tuning.jobs.cancel(job)
            check(terminal.wait_for(r"cannot reach|refused|no answer|not reach"),
                  "a server that is gone is said, and the last numbers stay")
            terminal.type("q")
            after = terminal.wait_for(re.escape(PROMPT.strip()) + r"\s*$")
            check(after is not None and "HELD BY" not in after, "q leaves the terminal as it was")
        finally:
            terminal.close()
    print((PICTURES / "top-120x30.txt").read_text())
    print(f"pictures: {PICTURES}")
    checks.end()


if __name__ == "__main__":
    main()
