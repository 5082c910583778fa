"""Every file under configs/ loads: those of ours into TANDEM, a dashboard as JSON whose panels have
names and queries. Usage: configs.py TANDEM"""

import json
import subprocess
import sys

from source_tree import ROOT, report

files = sorted((ROOT / "configs").rglob("*.toml"))
findings = [] if files else ["no file under configs/"]
for file in files:
    run = subprocess.run([sys.argv[1], "config", "check", file], text=True, capture_output=True,
                         check=False, timeout=30)
    if run.returncode != 0:
        findings.append(run.stderr.strip())
dashboards = sorted((ROOT / "configs").rglob("*.json"))
for file in dashboards:
    try:
        panels = json.loads(file.read_text(encoding="utf-8"))["panels"]
        findings += [f"{file.name}: panel {panel['id']} asks for nothing" for panel in panels
                     if panel["type"] != "row" and not (panel["title"] and panel["targets"])]
        if len({panel["id"] for panel in panels}) != len(panels):
            findings.append(f"{file.name}: two panels have one id")
    except (ValueError, KeyError) as why:
        findings.append(f"{file.name}: {why!r}")
print(f"{len(files) + len(dashboards)} files")
report("configs load", findings)
