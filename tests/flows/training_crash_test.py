"""kill -9 at random instants of a job, a restart each time: the final parameters are those of an
undisturbed run, to the bit; the same on one device and on two; pauses change nothing either.

TANDEM_KILLS sets how many instants (50)."""
import json
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import httpx  # noqa: E402
import openai  # noqa: E402
from support import checks  # noqa: E402
from support.checks import check  # noqa: E402
from support.job_events import wait_for_end, wait_for_step  # noqa: E402
from support.tandem_server import Server  # noqa: E402
from support.tiny_chat_model import make_tiny_chat_model  # noqa: E402

KILLS = int(os.environ.get("TANDEM_KILLS", "50"))
EPOCHS, EXAMPLES = 12, 240
ENDED = ("succeeded", "failed", "cancelled")

def write_data(path):
    chance = random.Random(3)
    words = ["red", "green", "blue", "one", "two", "three", "north", "south"]
    with path.open("w") as file:
        for _ in range(EXAMPLES):
            said = " ".join(chance.choices(words, k=chance.randint(2, 12)))
            file.write(json.dumps({"messages": [
                {"role": "user", "content": said},
                {"role": "assistant", "content": said[::-1]}]}) + "\n")
    return path


class Home:
    """A TANDEM_HOME of its own, and servers that come and go over it."""

    def __init__(self, folder, model, *options):
        self.folder, self.model, self.options = folder, model, options
        folder.mkdir()

    def up(self):
        return Server(*self.options, model=self.model, TANDEM_HOME=str(self.folder))


def client_of(server):
    return openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)


def submit(client, data, **own):
    file = client.files.create(file=data.open("rb"), purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model=client.models.list().data[0].id, training_file=file.id, seed=5,
        extra_body={"tandem": {"slots": 2, "checkpoint_every_steps": 3, "learning_rate": 1e-3,
                               "checkpoints_kept": 2} | own},
        method={"type": "supervised", "supervised": {"hyperparameters": {
            "n_epochs": EPOCHS, "batch_size": 4}}}).id


def outcome(server, client, job):
    """(the parameters' hash, trained tokens) of a job that succeeded."""
    wait_for_end(server.address, job)
    done = client.fine_tuning.jobs.retrieve(job)
    if done.status != "succeeded":
        raise RuntimeError(f"{done.status}: {done.error}")
    for event in client.fine_tuning.jobs.list_events(job, limit=100):
        found = re.search(r"SHA-256 ([0-9a-f]{64})", event.message)
        if found:
            return found.group(1), done.trained_tokens
    raise RuntimeError("no event names the parameters' hash")


def undisturbed(home, data, **own):
    with home.up() as server:
        client = client_of(server)
        return outcome(server, client, submit(client, data, **own))


def killed(home, data, kills, **own):
    chance = random.Random(11)
    server = home.up()
    job = submit(client_of(server), data, **own)
    done = 0
    while done < kills:
        # The instant is a matter of chance; the clock is what is tested here.
        threading.Event().wait(chance.uniform(0.0, 0.15))
        with httpx.Client(base_url=server.address) as http:
            ended = http.get(f"/v1/fine_tuning/jobs/{job}").json()["status"] in ENDED
        if ended:
            break
        server.end(how=signal.SIGKILL)
        done += 1
        server = home.up()
    with server:
        return outcome(server, client_of(server), job), done


def paused(home, data, pauses, kills, **own):
    """Pauses and kills in turn; the job is resumed after each."""
    server = home.up()
    client = client_of(server)
    job = submit(client, data, **own)
    for turn in range(pauses):
        before = client.fine_tuning.jobs.retrieve(job).model_extra["tandem"]["step"]
        wait_for_step(server.address, job, before + 4)
        client.fine_tuning.jobs.pause(job)
        if turn < kills:
            server.end(how=signal.SIGKILL)
            server = home.up()
            client = client_of(server)
            check(client.fine_tuning.jobs.retrieve(job).status == "paused",
                  "a paused job stays paused over a restart")
        client.fine_tuning.jobs.resume(job)
    with server:
        return outcome(server, client, job)


def main():
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        model = make_tiny_chat_model(folder / "tiny-chat")
        data = write_data(folder / "data.jsonl")
        tokens = None
        for method in ("full", "lora"):
            one = ("--devices", "cpu:0-0")
            truth, tokens = undisturbed(Home(folder / f"{method}-1", model, *one), data,
                                        method=method)
            two, tokens_two = undisturbed(
                Home(folder / f"{method}-2", model, "--devices", "cpu:0-0,cpu:1-1"), data,
                method=method)
            check(truth == two, f"{method}: one device and two make the same parameters")
            kills = KILLS if method == "full" else KILLS // 5
            (after, tokens_after), done = killed(Home(folder / f"{method}-k", model, *one), data,
                                                 kills, method=method)
            check(after == truth and tokens_after == tokens == tokens_two,
                  f"{method}: {done} kills change nothing")
            again, tokens_again = paused(Home(folder / f"{method}-p", model, *one), data, 3, 2,
                                         method=method)
            check(again == truth and tokens_again == tokens,
                  f"{method}: three pauses and two kills change nothing, every token once")
    checks.end()


if __name__ == "__main__":
    main()
