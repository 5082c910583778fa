"""Waiting for a fine-tuning job: its live event stream, so that a test that waits costs nothing."""
import json

import httpx


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
