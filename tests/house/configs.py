"""Every file under configs/ loads. Usage: configs.py TANDEM"""

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
print(f"{len(files)} files")
report("configs load", findings)
