"""The manifest that `tandem launch --kubernetes` prints is what Kubernetes takes, and what it says
fits together."""
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402
from support import checks  # noqa: E402
from support.checks import check  # noqa: E402
from support.tandem_server import run_tandem  # noqa: E402

VERSIONS = ("1.28", "1.37")


def manifest(*options):
    status, out, err = run_tandem("launch", "--kubernetes", *options)
    if status != 0:
        raise RuntimeError(err)
    return out


def valid(text, what):
    faults = []
    for document in yaml.safe_load_all(text):
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as why:
                faults.append(f"{document['kind']} ({version}): {why}")
    check(not faults, f"{what} passes the schemas of {' and '.join(VERSIONS)} {faults or ''}")


def by_name(text):
    return {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(text)}


def fits(text):
    objects = by_name(text)
    head = objects[("StatefulSet", "tandem-head")]["spec"]
    nodes = objects[("StatefulSet", "tandem-node")]["spec"]
    check(head["replicas"] == 1 and nodes["replicas"] == 3, "one head and three more nodes")
    headless = objects[("Service", "tandem-cluster")]["spec"]
    check(headless["clusterIP"] == "None" and headless["publishNotReadyAddresses"],
          "the head has a name before it is ready")
    client = objects[("Service", "tandem")]["spec"]
    labels = head["template"]["metadata"]["labels"]
    check(client["selector"].items() <= labels.items() and
          not client["selector"].items() <= nodes["template"]["metadata"]["labels"].items(),
          "clients reach the head alone")
    budget = objects[("PodDisruptionBudget", "tandem")]["spec"]
    check(budget["maxUnavailable"] == 1 and
          budget["selector"]["matchLabels"].items() <= labels.items(), "one pod goes at a time")
    pod = head["template"]["spec"]
    container = pod["containers"][0]
    paths = {kind: container[kind]["httpGet"]["path"]
             for kind in ("startupProbe", "readinessProbe", "livenessProbe")}
    check(paths == {"startupProbe": "/health/ready", "readinessProbe": "/health/ready",
                    "livenessProbe": "/health/live"}, f"probes ask the real routes: {paths}")
    check(pod["terminationGracePeriodSeconds"] == 75, "a pod may drain before it is killed")
    check(container["resources"]["requests"] == container["resources"]["limits"] ==
          {"cpu": "4", "memory": "8Gi"}, "with what it needs")
    address = "tandem-head-0.tandem-cluster:7000"
    check(address in nodes["template"]["spec"]["containers"][0]["command"][2], "nodes join the head")
    secret = next(v["secret"] for v in pod["volumes"] if v["name"] == "secrets")
    check(secret["secretName"] == "tandem" and "kubectl create secret generic tandem" in text,
          "the secret is referred to, and the manifest says how it is made")


def commands_are_ours(text):
    """What the pods run is parsed by a real shell and by `tandem` itself."""
    with tempfile.TemporaryDirectory() as folder:
        fake = pathlib.Path(folder) / "tandem"
        fake.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
        fake.chmod(0o755)
        for (kind, name), one in by_name(text).items():
            if kind != "StatefulSet":
                continue
            command = one["spec"]["template"]["spec"]["containers"][0]["command"]
            words = subprocess.run(
                command, env={"PATH": f"{folder}:/usr/bin:/bin", "POD_IP": "10.1.2.3",
                              "POD_NAME": "tandem-node-0"},
                capture_output=True, text=True, check=True).stdout.split("\n")
            check("cluster.listen=10.1.2.3:7000" in words, f"{name} listens at its own address")
            status, out, err = run_tandem(*words[:-1], "--help")
            check(status == 0 and "--config" in out, f"{name}: tandem takes its options {err}")


FULL = manifest("Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q8_0", "--nodes", 4, "--cores", 4, "--memory",
                "8Gi", "--set", "serve.max_queued=64")
valid(FULL, "a model of the hub")
valid(manifest("/models/m.gguf", "--nodes", 1, "--image", "registry.example.org/tandem:1"),
      "a model in the image")
fits(FULL)
commands_are_ours(manifest("/models/m.gguf", "--nodes", 4, "--set", "devices.isolation=process"))
checks.end()
