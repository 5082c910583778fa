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
from support.job_events import events, wait_for_step  # noqa: E402
from support.partition import Database, Head, Node, Streams, kill_all, machines, print_lines  # noqa: E402
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

EPOCHS = 3
STEPS = EPOCHS * 60
OWN = {"slots": 4, "checkpoint_every_steps": 5}


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

    def head(self, name):
        return Head(self.at[name], self.database, self.folder, self.model)

    def whole(self):
        wanted = {"cpu:0-0", "cpu:1-1", "node-c/cpu:1-1", "node-d/cpu:1-1"}
        return wait_until(lambda: wanted <= self.leader.devices())

    def said(self, job, pattern):
        """The job's events with the pattern."""
        listed = self.leader.admin(f"/v1/fine_tuning/jobs/{job}/events?limit=100")["data"]
        return [one["message"] for one in listed if re.search(pattern, one["message"])]

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


class Work:
    """A job at any time: one that has few steps left is waited for, and another one follows. Each ends
    with the parameters of an undisturbed run."""

    def __init__(self, cluster, data):
        self.cluster = cluster
        self.file = upload(cluster.leader.address, data)
        self.count = 0
        self.begin()
        self.truth = self.outcome()
        self.begin()

    def begin(self):
        self.count += 1
        self.job = submit(self.cluster.leader.address, self.file, f"job {self.count}", EPOCHS, **OWN)

    def outcome(self):
        return outcome(self.cluster.leader.address, self.job)

    def step(self):
        shown = self.cluster.leader.admin(f"/v1/fine_tuning/jobs/{self.job}")
        return (shown.get("tandem") or {}).get("step") or 0

    def has_left(self, steps):
        if self.step() + steps > STEPS:
            self.end("before the next cut")
            self.begin()
        wait_for_step(self.cluster.leader.address, self.job, 3)

    def goes_on(self, steps):
        return wait_for_step(self.cluster.leader.address, self.job, self.step() + steps)

    def end(self, when):
        check(self.outcome() == self.truth, f"{when}: job {self.count} ends as if nothing had happened")


def disturbed(cluster, work, streams, pair, during, after=lambda work: None, steps=25):
    """One cut under streams and a job that has so many steps left. `during` says when it was noticed,
    and what came of it, before the pair is healed; `after` waits for what comes of that."""
    one, other = (cluster.at[name] for name in pair)
    work.has_left(steps)
    broken = streams.broken()
    began = time.monotonic()
    network.cut(one, other)
    noticed, what = during(work)
    network.heal(one, other)
    whole = cluster.whole()
    check(whole is not None, f"{pair}: whole again {whole and round(whole, 1)} s after it was healed")
    after(work)
    gap = streams.longest_gap(began, time.monotonic())
    cluster.note(pair, noticed, gap, what)
    broken = streams.broken() - broken
    check(streams.differing() == 0 and (broken == 0 or "lead" in what),
          f"{pair}: texts stay the same, {broken} streams broke off")
    epoch = cluster.database.ask("SELECT leader_epoch FROM tandem_store")
    check(cluster.leader.wait_line(r"^leads \(epoch (\d+)\)")[1].group(1) == epoch,
          f"{pair}: one head leads, of epoch {epoch}")


def nothing_happens(steps):
    def during(work):
        check(work.goes_on(steps), "the job goes on")
        return None, "nobody needs that way: nothing happens"
    return during


def node_lost(cluster, node):
    device = f"{node.machine.name}/cpu:1-1"

    def during(work):
        lost = sum(line.startswith("lost ") for line in list(node.lines))
        noticed = wait_until(lambda: device not in cluster.leader.devices())
        check(node.says("lost ", lost + 1) is not None, f"the node says so: {node.lines[-1]}")
        check(work.goes_on(5), "the job goes on")
        return noticed, "the job goes on without its device, which comes back"
    return during


def nodes_torn(cluster):
    def during(work):
        noticed = wait_until(lambda: cluster.said(work.job, "is left out"))
        said = cluster.said(work.job, "is left out")
        check(noticed is not None, f"the job's events name who is left out: {said}")
        check(len(cluster.leader.devices()) == 4, "which serves on")
        check(work.goes_on(5), "the job goes on")
        return noticed, "the job goes on without node-d's device, which serves on"
    return during


def taken_in_again(work):
    """Its device works on the job again, after the pair was healed; a job may end before the way is
    tried, every five seconds: the next one begins on all devices."""
    def heard():
        return any("can be reached by the others again" in event["message"]
                   for event in events(work.cluster.leader.address, work.job))

    wait_until(lambda: heard() or work.step() >= STEPS)
    if heard() and work.step() + 5 <= STEPS:
        check(work.goes_on(5), "who was left out is reached again, and the job goes on")
        return
    work.has_left(STEPS - 10)
    check(any("on 4 devices" in event["message"]
              for event in events(work.cluster.leader.address, work.job)),
          "the next job is on all devices, who was left out among them")


def store_lost_by_leader(cluster):
    def during(work):
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
    work = Work(cluster, data)
    c, d = cluster.nodes
    with Streams(lambda: cluster.leader.address) as streams:
        # One that stands by gives up a session that is silent for five seconds: that one lasts longer.
        for pair, steps in ((("head-a", "head-b"), 5), (("head-b", "store"), 20),
                            (("head-b", "node-c"), 5), (("head-b", "node-d"), 5),
                            (("node-c", "store"), 5), (("node-d", "store"), 5)):
            disturbed(cluster, work, streams, pair, nothing_happens(steps))
        disturbed(cluster, work, streams, ("node-c", "node-d"), nodes_torn(cluster), taken_in_again,
                  steps=120)
        disturbed(cluster, work, streams, ("head-a", "node-c"), node_lost(cluster, c))
        disturbed(cluster, work, streams, ("head-a", "node-d"), node_lost(cluster, d))
        disturbed(cluster, work, streams, ("head-a", "store"), store_lost_by_leader(cluster))
        work.end("after the last cut")
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
