"""Every check of an op is asked by every backend: what a GPU's ops refuse is seen without a GPU."""

import re

from source_tree import ROOT, bare_code, report, sources

declared = re.findall(r"^refusal (\w+)\(", (ROOT / "kernels/op_checks.hpp").read_text("utf-8"),
                      re.M)
contract = bare_code((ROOT / "kernels/backend.hpp").read_text("utf-8"))
findings = []
if len(declared) < 30:
    findings.append(f"kernels/op_checks.hpp: {len(declared)} checks found, some are missing")
for folder, owner in (("kernels/cpu", "cpu_device"), ("kernels/cuda", "cuda_device")):
    code = "\n".join(bare_code(text) for _, text in sources([folder], (".cpp", ".cu")))
    header = bare_code((ROOT / folder / f"{owner}.hpp").read_text("utf-8"))
    for op in declared:
        # An op may be left to backend.hpp's own definition, or never be done.
        body = re.search(rf"\b{owner}::{op}\(.*?\n}}\n", code, re.S)
        if body is None:
            left = rf"virtual \w+ {op}\([^;{{]*\)\s*{{"
            refused = rf"\w+ {op}\([^;{{]*\)\s*override\s*{{\s*return false;"
            if not re.search(left, contract) and not re.search(refused, header):
                findings.append(f"{folder}: no {owner}::{op}")
        elif f"require(checks::{op}(" not in body.group():
            findings.append(f"{folder}: {owner}::{op} computes before it asks checks::{op}")

report("checks of ops", findings)
