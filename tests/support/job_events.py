"""Waiting for a fine-tuning job: its live event stream, so that a test that waits costs nothing."""
import json

import httpx
import openai

from support import made_up_facts


def start_lasting_job(server, folder):
    """A LoRA job that outlasts the test; (client, its id)."""
    client = openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)
    data = made_up_facts.write(folder / "facts.jsonl")
    file = client.files.create(file=data.open("rb"), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=client.models.list().data[0].id, training_file=file.id, suffix="facts", seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {
            "n_epochs": 50, "batch_size": 2}}},
        extra_body={"tandem": {"method": "lora", "rank": 8, "learning_rate": 5e-4}})
    return client, job.id


def events(address, job):
    """Every event of the job, past ones first, then as they come, until it ends or is paused."""
    with httpx.stream("GET", f"{address}/v1/fine_tuning/jobs/{job}/events?stream=true",
                      timeout=600) as answer:
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                return
            if line.startswith("data: "):
                yield json.loads(line[len("data: "):])


def wait_for_step(address, job, step):
    """Until so many optimizer steps are done; False when the job ended before."""
    for event in events(address, job):
        if event["type"] == "metrics" and event["data"]["step"] >= step:
            return True
    return False


def wait_for_end(address, job):
    for _ in events(address, job):
        pass
