"""A fine-tuning job by the unmodified OpenAI client, beside a stream that never notices.

On made-up facts the tuned model answers right where the base does not. Upload, create, events,
checkpoints, pause, resume, chat with the model, the result file, and what is refused.
"""
import pathlib
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import openai  # noqa: E402
from support import checks, made_up_facts  # noqa: E402
from support.checks import check  # noqa: E402
from support.job_events import wait_for_end, wait_for_step  # noqa: E402
from support.tandem_server import Server, fresh_home  # noqa: E402

BASE = "SmolLM2-135M-Instruct.Q4_1"
STORY = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]

def answer(client, model, question):
    reply = client.chat.completions.create(
        model=model, temperature=0, max_tokens=32, messages=[{"role": "user", "content": question}])
    return reply.choices[0].message.content, reply


def story(client, model=BASE):
    chunks = []
    stamps = []
    stream = client.chat.completions.create(model=model, messages=STORY, temperature=0,
                                            max_tokens=160, stream=True)
    for chunk in stream:
        stamps.append(time.monotonic())
        chunks.append(chunk.choices[0].delta.content or "" if chunk.choices else "")
    return "".join(chunks), stamps


class Stories(threading.Thread):
    """Streams one story after the other until told to stop; keeps every text."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client, self.texts, self.longest_gap, self.enough = client, [], 0.0, False
        self.problem = None

    def run(self):
        try:
            while not self.enough:
                text, stamps = story(self.client)
                self.texts.append(text)
                gaps = [b - a for a, b in zip(stamps, stamps[1:])]
                self.longest_gap = max([self.longest_gap, *gaps])
        except Exception as why:  # told at the end
            self.problem = why


def run(server, client, folder):
    alone, _ = story(client)
    before = {thing: answer(client, BASE, made_up_facts.question(thing))[0]
              for thing in made_up_facts.FACTS}
    check(not any(right in before[thing] for thing, right in made_up_facts.FACTS.items()),
          "the base knows none of the facts")

    file = client.files.create(file=made_up_facts.write(folder / "facts.jsonl").open("rb"),
                               purpose="fine-tune")
    check(file.object == "file" and file.purpose == "fine-tune" and file.bytes > 0, "the file object")
    check(client.files.content(file.id).read() == (folder / "facts.jsonl").read_bytes(),
          "the file's content comes back as it was")

    stories = Stories(client)
    stories.start()
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=file.id, suffix="facts", seed=7,
        metadata={"purpose": "test"},
        method={"type": "supervised", "supervised": {"hyperparameters": {
            "n_epochs": 6, "batch_size": 6}}},
        extra_body={"tandem": {"method": "lora", "rank": 16, "learning_rate": 1e-3,
                               "schedule": "linear", "checkpoint_every_steps": 8, "checkpoints_kept": 6,
                               "publish_every_steps": 4}})
    check(job.id.startswith("ftjob-") and job.object == "fine_tuning.job", "the job object")
    check(job.status in ("validating_files", "queued", "running"), "a new job waits or runs")

    check(wait_for_step(server.address, job.id, 1), "a step is done")
    paused = client.fine_tuning.jobs.pause(job.id)
    check(paused.status == "paused", "pause answers with a paused job")
    resumed = client.fine_tuning.jobs.resume(job.id)
    check(resumed.status in ("queued", "running"), "resume answers with a queued job")

    check(wait_for_step(server.address, job.id, 9), "the versions of steps 4 and 8 are out")
    tuned = client.fine_tuning.jobs.retrieve(job.id)  # called while the job goes on
    _, reply = answer(client, tuned.fine_tuned_model, "Hello!")
    first_version = reply.model_extra["tandem"]["weights_version"]
    check(reply.model == tuned.fine_tuned_model and first_version >= 4,
          f"a version is served while the job is {tuned.status} (version {first_version})")

    wait_for_end(server.address, job.id)
    done = client.fine_tuning.jobs.retrieve(job.id)
    check(done.status == "succeeded", f"the job is {done.status} {done.error or ''}")
    stories.enough = True
    stories.join(120)
    check(stories.problem is None, f"the stream never broke {stories.problem or ''}")
    check(len(stories.texts) > 1 and all(text == alone for text in stories.texts),
          f"each of {len(stories.texts)} stories beside the job is what it is alone")
    print(f"   longest gap in a stream: {stories.longest_gap * 1000:.0f} ms")
    check(done.fine_tuned_model == f"ft:{BASE}:tandem:facts:{job.id}", "the model's name")
    check(done.trained_tokens and done.trained_tokens > 0 and done.finished_at is not None,
          "trained tokens and the time it finished")

    right = 0
    for thing, expected in made_up_facts.FACTS.items():
        text, reply = answer(client, done.fine_tuned_model, made_up_facts.question(thing))
        right += expected in text
        if expected not in text:
            print(f"   {thing}: {text!r}, not {expected!r}")
    check(right >= 5, f"the tuned model knows {right} of {len(made_up_facts.FACTS)} facts")
    check(reply.model_extra["tandem"]["weights_version"] == 24, "and names its version")
    check(answer(client, BASE, made_up_facts.question("the capital of Velduria"))[0]
          == before["the capital of Velduria"], "the base is what it was")

    steps = sorted({e.data["step"] for e in client.fine_tuning.jobs.list_events(job.id, limit=100)
                    if e.type == "metrics"})
    check(steps == list(range(1, 25)), "one metrics event a step")
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
    steps = [c.step_number for c in checkpoints]
    # Those of workers' published versions are listed, too.
    check([s for s in steps if s % 8 == 0] == [24, 16, 8] and steps == sorted(steps, reverse=True),
          f"checkpoints, the newest first: {steps}")
    older = next(c for c in checkpoints if c.step_number == 16).fine_tuned_model_checkpoint
    text, reply = answer(client, older, "Hello!")
    check(older.endswith(":ckpt-step-16")
          and reply.model_extra["tandem"]["weights_version"] == 16, "an older checkpoint is callable")
    check(done.fine_tuned_model in [m.id for m in client.models.list()], "listed among models")
    result = client.files.content(done.result_files[0]).read().decode().splitlines()
    check(result[0].startswith("step,train_loss,train_accuracy") and len(result) == 25,
          "the result file has a line a step")
    losses = [float(line.split(",")[1]) for line in result[1:]]
    check(losses[-1] < losses[0] / 4, f"the loss fell from {losses[0]:.2f} to {losses[-1]:.2f}")
    return done.fine_tuned_model


def refusals(server, client, folder):
    bad = folder / "bad.jsonl"
    bad.write_text('{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", '
                   '"content": "Ho"}]}\n{"messages": [{"role": "usr", "content": "Hi"}]}\n')
    try:
        file = client.files.create(file=bad.open("rb"), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
        wait_for_end(server.address, job.id)
        job = client.fine_tuning.jobs.retrieve(job.id)
        check(job.status == "failed" and "line 2" in job.error.message
              and "role" in job.error.message, "a bad line fails the job with line and field")
    except openai.BadRequestError as why:
        check("line 2" in str(why), f"a bad line is refused with its number: {why}")
    try:
        client.fine_tuning.jobs.create(model=BASE, training_file="file-none")
        check(False, "an unknown file is refused")
    except (openai.BadRequestError, openai.NotFoundError) as why:
        check("file-none" in str(why), "an unknown file is refused by name")
    good = client.files.create(file=made_up_facts.write(folder / "again.jsonl").open("rb"),
                               purpose="fine-tune")
    try:
        client.fine_tuning.jobs.create(model=BASE, training_file=good.id,
                                       extra_body={"tandem": {"learning_rat": 1}})
        check(False, "a misspelt option is refused")
    except openai.BadRequestError as why:
        check("learning_rate" in str(why), "a misspelt option is refused with the right name")
    job = client.fine_tuning.jobs.create(model=BASE, training_file=good.id)
    check(client.fine_tuning.jobs.cancel(job.id).status == "cancelled", "a job is cancelled")


def main():
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        home = fresh_home(folder)
        with Server(TANDEM_HOME=home) as server:
            client = openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)
            model = run(server, client, folder)
            refusals(server, client, folder)
            last = answer(client, model, made_up_facts.question("the capital of Velduria"))[0]
            check(server.end() == 0, "the platform ends well")
        with Server(TANDEM_HOME=home) as server:
            client = openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)
            back = server.wait_until(lambda: model in [m.id for m in client.models.list()])
            check(back and answer(client, model,
                                  made_up_facts.question("the capital of Velduria"))[0] == last,
                  "after a restart the model answers as before")
    checks.end()


if __name__ == "__main__":
    main()
