"""A Slurm of a test's own on this machine: slurmctld, two slurmd, and munge to sign their messages."""
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

from support.ssh_server import free_port

DAEMONS = ("slurmctld", "slurmd", "munged")
START_DEADLINE_S = 30


def daemon(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


class Slurm:
    """Nodes n1 and n2; `environment` is for whoever speaks to it."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        for name in ("state", "spool/n1", "spool/n2"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host, user, s = socket.gethostname().split(".")[0], getpass.getuser(), self.folder
        (self.folder / "slurm.conf").write_text(f"""ClusterName=tandem
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={s}/munge.socket
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
MailProg=/bin/true
StateSaveLocation={s}/state
SlurmdSpoolDir={s}/spool/%n
SlurmctldPidFile={s}/slurmctld.pid
SlurmdPidFile={s}/%n.pid
SlurmctldLogFile={s}/slurmctld.log
SlurmdLogFile={s}/%n.log
ReturnToService=2
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 RealMemory=2000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 RealMemory=2000
PartitionName=test Nodes=ALL Default=YES State=UP MaxTime=INFINITE
""")
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self.processes = []
        self._start("munged", "-F", "-S", s / "munge.socket", f"--key-file={key}",
                    f"--pid-file={s}/munge.pid", f"--log-file={s}/munge.log",
                    f"--seed-file={s}/munge.seed", "--force")
        self._wait(lambda: (s / "munge.socket").exists())
        self._start("slurmctld", "-D", "-c")
        for node in ("n1", "n2"):
            self._start("slurmd", "-D", "-N", node)
        self._wait(lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2")

    def _start(self, name, *arguments):
        with (self.folder / f"{name}.out").open("ab") as log:
            self.processes.append(subprocess.Popen(
                [daemon(name), *map(str, arguments)], stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, env=dict(os.environ, **self.environment)))

    def _wait(self, condition):
        end = time.monotonic() + START_DEADLINE_S
        while not condition():
            if time.monotonic() > end or any(p.poll() is not None for p in self.processes):
                logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.out"))
                self.end()
                raise RuntimeError("Slurm did not start:\n" + logs)

    def run(self, *command):
        return subprocess.run(command, capture_output=True, text=True, timeout=30,
                              env=dict(os.environ, **self.environment), check=False).stdout

    def end(self):
        self.run("scancel", "-u", getpass.getuser())
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            process.wait(20)
