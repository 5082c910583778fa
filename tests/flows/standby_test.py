"""Two heads over one PostgreSQL database: one leads, the other stands by. Whatever happens to the one
that leads (killed under streams and a job, frozen, cut off from the database), the job ends with the
parameters of an undisturbed run, to the bit, and no request is accepted twice.

TANDEM_TEST_POSTGRES names the server; test.sh starts one."""
import concurrent.futures
import pathlib
import re
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import checks  # noqa: E402
from support.checks import check  # noqa: E402
from support.heads import (SERVER, Head, new_database, outcome, psql, stream, submit,  # noqa: E402
                           upload, write_data)
from support.job_events import wait_for_step  # noqa: E402
from support.tandem_server import run_tandem  # noqa: E402
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

KILLED_LIMIT_MS = 3000
FROZEN_LIMIT_MS = 9000  # 5 s of silence, and the next look


def undisturbed(home, model, data):
    head = Head(home, new_database(), model).ready()
    try:
        return (outcome(head.address, submit(head.address, upload(head.address, data), "k")),
                [stream(head.address, n) for n in range(3)])
    finally:
        check(head.end() == 0, "a head that leads ends cleanly")


def killed_then_frozen(home, model, data, truth, texts):
    database = new_database()
    first = Head(home, database, model).ready()
    second = Head(home, database, model)
    said = second.wait_line(r"^standby: (\S+) leads \(epoch (\d+)\)")[1]
    check(said.group(2) == "1" and said.group(1) in first.address,
          "who stands by says who leads: " + said.group(0))
    file = upload(first.address, data)
    job = submit(first.address, file, "once")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        streams = [pool.submit(stream, first.address, n) for n in range(3)]
        wait_for_step(first.address, job, 4)
        killed = time.monotonic()
        first.end(signal.SIGKILL)
        broken = [one.result() for one in streams]
    leads_ms = round((second.wait_line(r"^leads \(epoch 2\)")[0] - killed) * 1000)
    second.ready()
    ready_ms = round((second.wait_line("^ready ")[0] - killed) * 1000)
    check(leads_ms <= KILLED_LIMIT_MS, f"after kill -9 the next leads in {leads_ms} ms and is "
                                       f"ready in {ready_ms} ms")
    again = [stream(second.address, n) for n in range(3)]
    check(all(text in (None, true) for text, true in zip(broken, texts)) and again == texts,
          "streams broke off with the head, and asked again give the same texts")
    check(submit(second.address, file, "once") == job, "the same request again is the same job")
    check(outcome(second.address, job) == truth, "the job ends as if nothing had happened")
    check(psql(database, "SELECT count(*) FROM jobs") == "1", "no request was accepted twice")
    frozen(second, home, database, model, file, truth)


def frozen(second, home, database, model, file, truth):
    third = Head(home, database, model)
    third.wait_line(r"^standby: \S+ leads \(epoch 2\)")
    job = submit(second.address, file, "twice")
    wait_for_step(second.address, job, 4)
    stopped = time.monotonic()
    second.send(signal.SIGSTOP)
    leads_ms = round((third.wait_line(r"^leads \(epoch 3\)")[0] - stopped) * 1000)
    check(leads_ms <= FROZEN_LIMIT_MS, f"a frozen head is followed in {leads_ms} ms")
    third.ready()
    second.send(signal.SIGCONT)
    status = second.process.wait(20)
    second.end()
    last = second.lines[-1][1]
    check(status == 1 and re.match(r"tandem: another head leads since .*\(epoch 3, ours was 2\)",
                                   last), f"awake again it writes nothing and ends: {last}")
    check(outcome(third.address, job) == truth, "its job ends as if nothing had happened")
    check(psql(database, "SELECT leader_epoch FROM tandem_store") == "3", "one head leads")
    check(third.end() == 0, "the last head ends cleanly")


def cut(home, model, data, truth):
    database = new_database()
    head = Head(home, database, model).ready()
    job = submit(head.address, upload(head.address, data), "k")
    for step in (3, 6, 9, 12):
        wait_for_step(head.address, job, step)
        psql("postgres", "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                         f"WHERE datname = '{database}'")
    check(outcome(head.address, job) == truth, "sessions cut four times: the job goes on, the same")
    check(head.end() == 0 and psql(database, "SELECT leader_epoch FROM tandem_store") == "1",
          "and the head led all the time")
    check("test-secret" not in head.text(), "no line of a head has the password")


def refusals(home, model):
    wrong = re.sub(r":[^:@]+@", ":not-the-secret@", SERVER)
    for url, words in ((f"{wrong}/postgres", "password"),
                       (f"{SERVER}/not_there", "createdb"),
                       ("postgresql://u:not-the-secret@127.0.0.1:1/x", "no PostgreSQL server")):
        status, _, errors = run_tandem("up", "--port", "0", "--model", model, TANDEM_HOME=str(home),
                                       TANDEM_STORE_URL=url)
        check(status == 1 and errors.count("\n") == 1 and words in errors and
              "not-the-secret" not in errors, f"refused in a line: {errors.strip()}")
    _, shown, _ = run_tandem("config", "show", TANDEM_STORE_URL=f"{wrong}/x")
    check("not-the-secret" not in shown and ":***@" in shown, "config show hides the password")


def main():
    if not SERVER:
        print("skipped: TANDEM_TEST_POSTGRES names no server (test.sh starts one)")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        model = make_tiny_chat_model(folder / "tiny-chat")
        data = write_data(folder / "data.jsonl")
        home = folder / "home"
        home.mkdir()
        refusals(home, model)
        truth, texts = undisturbed(home, model, data)
        check(all(texts), "undisturbed streams end")
        killed_then_frozen(home, model, data, truth, texts)
        cut(home, model, data, truth)
    checks.end()


if __name__ == "__main__":
    main()
