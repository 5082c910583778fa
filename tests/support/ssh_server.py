"""An sshd of a test's own on loopback, with its own keys, and the configuration for ssh that finds it
under several names."""
import getpass
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class SshServer:
    """Names of its configuration: `good`, `also-good`; `no-key` offers a key that is not known there,
    `stranger` has a host key that nobody has seen, `closed` is a port where nobody listens."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        for key in ("host", "user", "other"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                            self.folder / key], check=True)
        shutil.copy(self.folder / "user.pub", self.folder / "authorized")
        self.port = free_port()
        self._write("sshd_config", f"Port {self.port}", "ListenAddress 127.0.0.1",
                    f"HostKey {self.folder}/host", f"PidFile {self.folder}/pid",
                    f"AuthorizedKeysFile {self.folder}/authorized", "UsePAM no",
                    "PasswordAuthentication no", "KbdInteractiveAuthentication no",
                    "StrictModes no", "MaxStartups 100")
        host_key = " ".join((self.folder / "host.pub").read_text().split()[:2])
        self._write("known", f"[127.0.0.1]:{self.port} {host_key}")
        self._write("unknown")
        self._write(
            "config",
            *self._host("good also-good", self.port, "user", "known"),
            *self._host("no-key", self.port, "other", "known"),
            *self._host("stranger", self.port, "user", "unknown"),
            *self._host("closed", free_port(), "user", "known"))
        self.ssh = f"ssh -F {self.folder}/config"
        if os.geteuid() == 0:
            pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f",
                                         self.folder / "sshd_config"],
                                        stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if re.search("Server listening", line):
                break
        else:
            raise RuntimeError("sshd did not start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def _write(self, name, *lines):
        (self.folder / name).write_text("".join(line + "\n" for line in lines))

    def _host(self, names, port, key, known):
        return (f"Host {names}", "HostName 127.0.0.1", f"Port {port}", f"User {getpass.getuser()}",
                f"IdentityFile {self.folder}/{key}", "IdentitiesOnly yes",
                f"UserKnownHostsFile {self.folder}/{known}", "GlobalKnownHostsFile /dev/null")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
