"""A network that comes apart, one pair of machines at a time, under streams and a full fine-tuning job:
two heads over one store, two nodes. Never do two heads lead who write, never has a device two holders;
the job ends with the parameters of an undisturbed run, and all find each other again.

Needs network namespaces; says so and is skipped where they are not permitted."""
import pathlib
import re
import secrets
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks, network  # noqa: E402
from support.checks import check  # noqa: E402
from support.heads import outcome, submit, upload, write_data  # noqa: E402
from support.job_events import wait_for_step  # noqa: E402
from support.partition import Database, Head, Node, Streams, kill_all, machines, print_lines  # noqa: E402
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

EPOCHS = 4
OWN = {"slots": 4}


def wait_until(condition, deadline_s=60):
    """Each ask is a round trip to a head; the time it took, or None."""
    began = time.monotonic()
    while time.monotonic() < began + deadline_s:
        if condition():
            return time.monotonic() - began
    return None


class Cluster:
    def __init__(self, folder, model):
        self.folder, self.model = folder, model
        self.at = machines()
        self.database = Database(self.at["store"], folder / "postgres")
        self.leader = self.head("head-a").ready()
        self.other = self.head("head-b")
        self.other.wait_line("^standby: ")
        heads = [self.leader.cluster, self.other.cluster]
        self.nodes = [Node(self.at[name], heads, folder) for name in ("node-c", "node-d")]
        self.rows = []
        self.jobs = 0

    def head(self, name):
        return Head(self.at[name], self.database, self.folder, self.model)

    def whole(self):
        wanted = {"cpu:0-0", "cpu:1-1", "node-c/cpu:1-1", "node-d/cpu:1-1"}
        return wait_until(lambda: wanted <= self.leader.devices())

    def job(self, file):
        self.jobs += 1
        return submit(self.leader.address, file, f"job {self.jobs}", EPOCHS, **OWN)

    def events(self, job):
        listed = self.leader.admin(f"/v1/fine_tuning/jobs/{job}/events?limit=100")["data"]
        return [one["message"] for one in listed]

    def steps_on(self, job, more):
        """Until the job has done so many more steps."""
        def step():
            shown = self.leader.admin(f"/v1/fine_tuning/jobs/{job}")
            return (shown.get("tandem") or {}).get("step") or 0, shown["status"]
        first, _ = step()
        return wait_until(lambda: (now := step())[0] >= first + more or now[1] == "succeeded")

    def note(self, pair, noticed, gap, what):
        self.rows.append((f"{pair[0]} - {pair[1]}", f"{noticed:.1f}" if noticed else "-",
                          f"{gap:.2f}", what))

    def end(self):
        statuses = [node.end() for node in self.nodes]
        statuses += [head.end() for head in (self.other, self.leader)]
        self.database.end()
        for machine in self.at.values():
            machine.end()
        return statuses

    def table(self):
        print(f"   {'cut':<18}{'noticed s':>10}{'longest gap s':>15}   outcome")
        for cut, noticed, gap, what in self.rows:
            print(f"   {cut:<18}{noticed:>10}{gap:>15}   {what}")


def disturbed(cluster, pair, file, truth, during):
    """One cut under four streams and a job of its own. `during` says when it was noticed, and what
    came of it, before the pair is healed."""
    one, other = (cluster.at[name] for name in pair)
    job = cluster.job(file)
    wait_for_step(cluster.leader.address, job, 6)
    with Streams(lambda: cluster.leader.address) as streams:
        cluster.steps_on(job, 3)
        began = time.monotonic()
        network.cut(one, other)
        noticed, what = during(job)
        network.heal(one, other)
        whole = cluster.whole()
        hash_ = outcome(cluster.leader.address, job)
        gap = streams.longest_gap(began, time.monotonic())
    cluster.note(pair, noticed, gap, what)
    check(whole is not None, f"{pair}: whole again {whole and round(whole, 1)} s after it was healed")
    check(hash_ == truth, f"{pair}: the job ends as if nothing had happened")
    check(streams.differing() == 0 and (streams.broken() == 0 or "lead" in what),
          f"{pair}: texts stay the same, {streams.broken()} streams broke off")
    one_leads(cluster, pair)


def one_leads(cluster, pair):
    epoch = int(cluster.database.ask("SELECT leader_epoch FROM tandem_store"))
    check(cluster.leader.wait_line(r"^leads \(epoch (\d+)\)")[1].group(1) == str(epoch),
          f"{pair}: one head leads, of epoch {epoch}")


def nothing_happens(cluster):
    def during(job):
        cluster.steps_on(job, 40)
        return None, "nobody needs that way: nothing happens"
    return during


def node_lost(cluster, node):
    device = f"{node.machine.name}/cpu:1-1"
    lost = sum(line.startswith("lost ") for line in node.lines)

    def during(job):
        noticed = wait_until(lambda: device not in cluster.leader.devices())
        check(node.says("lost ", lost + 1) is not None, f"the node says so: {node.lines[-1]}")
        cluster.steps_on(job, 20)
        return noticed, "the job goes on without its device, which comes back"
    return during


def nodes_torn(cluster):
    def during(job):
        said = []

        def is_said():
            said.extend(line for line in cluster.events(job) if "is left out" in line)
            return len(said) > 0
        noticed = wait_until(is_said)
        check(noticed is not None, f"the job's events name who is left out: {said}")
        cluster.steps_on(job, 20)
        return noticed, "the job goes on without node-d's device, which serves on"
    return during


def store_lost_by_leader(cluster):
    def during(job):
        cut_at = time.monotonic()
        former, cluster_next = cluster.leader, cluster.other
        at, _ = cluster_next.wait_line(r"^leads \(epoch \d+\)", 30)
        noticed = at - cut_at
        # The one without the store serves on with what it has.
        before = len(former.devices())
        check(before == 4, f"the head without the store serves on, with {before} devices")
        cluster_next.ready()
        cluster.leader, cluster.other = cluster_next, former
        return noticed, "the next head leads; the one without the store serves, then ends"
    return during


def take_places(cluster, former_epoch):
    """The head that was cut off has ended by itself and is started again: it stands by."""
    status = cluster.other.process.wait(30)
    last = cluster.other.lines[-1][1]
    check(status == 1 and re.match("tandem: another head leads since", last),
          f"it wrote nothing more and ended: {last}")
    cluster.other = cluster.head(cluster.other.name)
    cluster.other.wait_line(rf"^standby: \S+ leads \(epoch {former_epoch + 1}\)")


def no_device_had_two_holders(cluster):
    """Of a node's device, the next head's first word came after the node left the former head."""
    for node in cluster.nodes:
        heads = [m.group(1) for line in node.lines if (m := re.match(r"joined (\S+) ", line))]
        lost = [m.group(1) for line in node.lines if (m := re.match(r"lost (\S+):", line))]
        check(heads[:len(lost)] == lost, f"{node.machine.name} was in one cluster at a time: "
                                         f"joined {heads}, lost {lost}")
    epochs = [one["epoch"] for one in cluster.leader.history() if one.get("kind") == "move"]
    check(len(epochs) == len(set(epochs)), f"each of {len(epochs)} moves has an epoch of its own")


def run(folder):
    folder.chmod(0o755)
    (folder / "home").mkdir()
    (folder / "secret").write_text(secrets.token_urlsafe(32) + "\n")
    model = make_tiny_chat_model(folder / "tiny-chat")
    data = write_data(folder / "data.jsonl")
    cluster = Cluster(folder, model)
    check(cluster.whole() is not None, "two heads, two nodes, four devices")
    file = upload(cluster.leader.address, data)
    truth = outcome(cluster.leader.address, cluster.job(file))
    c, d = cluster.nodes
    for pair, during in (
            (("head-a", "head-b"), nothing_happens(cluster)),
            (("head-b", "store"), nothing_happens(cluster)),
            (("head-b", "node-c"), nothing_happens(cluster)),
            (("node-c", "store"), nothing_happens(cluster)),
            (("node-c", "node-d"), nodes_torn(cluster)),
            (("head-a", "node-c"), node_lost(cluster, c)),
            (("head-a", "node-d"), node_lost(cluster, d)),
            (("head-a", "store"), store_lost_by_leader(cluster))):
        disturbed(cluster, pair, file, truth, during)
    take_places(cluster, 1)
    no_device_had_two_holders(cluster)
    check(cluster.end() == [0, 0, 0, 0], "all ended cleanly")
    cluster.table()


def main():
    permitted, why = network.enter()
    if not permitted:
        print(f"skipped: network namespaces are not permitted here: {why}")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            run(pathlib.Path(scratch))
        except Exception:
            print_lines()
            raise
        finally:
            kill_all()
    checks.end()


if __name__ == "__main__":
    main()
