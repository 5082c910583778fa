"""Machines on a network of their own: a namespace each, on a bridge, and pairs of them that are cut
from one another and healed. Nothing is seen of it outside, and all of it is gone with the test.

A cut is silent, as a lost cable is: each side of the pair sends to a hardware address that nobody has.
Each machine has an IPC namespace too: UCX would take shared memory between them otherwise, whose wake-up
calls go through sockets that a network namespace keeps to itself."""
import os
import subprocess
import sys

SWITCH = "10.77.0.254"  # where the test itself is
INSIDE = "TANDEM_TEST_INSIDE_NETWORK"


def enter():
    """The test goes on in a namespace of its own; False where that is not permitted, with why."""
    if os.environ.get(INSIDE):
        for command in ("ip link set lo up", "ip link add br0 type bridge",
                        f"ip addr add {SWITCH}/24 dev br0", "ip link set br0 up"):
            subprocess.run(command.split(), check=True)
        return True, ""
    try:
        tried = subprocess.run(
            ["unshare", "-n", "sh", "-ec", "ip link add br9 type bridge; ip link add v9 type veth peer "
             "name w9; ip link del br9"], capture_output=True, text=True)
    except FileNotFoundError as missing:
        return False, f"{missing.filename} is not there"
    if tried.returncode != 0:
        return False, (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv])


class Machine:
    """One of them. Programs run there while it is held."""

    def __init__(self, name, number):
        self.name, self.address = name, f"10.77.0.{number}"
        self.holder = subprocess.Popen(["unshare", "-n", "-i", "sh", "-c", "echo here; exec cat"],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.holder.stdout.readline()
        self.prefix = ["nsenter", "-t", str(self.holder.pid), "-n", "-i"]
        for command in (f"ip link add v{number} type veth peer name eth0 netns {self.holder.pid}",
                        f"ip link set v{number} master br0 up"):
            subprocess.run(command.split(), check=True)
        for command in (f"ip addr add {self.address}/24 dev eth0", "ip link set eth0 up",
                        "ip link set lo up"):
            self.run(command)

    def run(self, command):
        subprocess.run([*self.prefix, *command.split()], check=True)

    def loses(self, other):
        self.run(f"ip neigh replace {other.address} lladdr 02:00:00:00:00:99 dev eth0 nud permanent")

    def finds(self, other):
        self.run(f"ip neigh del {other.address} dev eth0")

    def end(self):
        self.holder.stdin.close()
        self.holder.wait(10)


def cut(one, other):
    one.loses(other)
    other.loses(one)


def heal(one, other):
    one.finds(other)
    other.finds(one)
