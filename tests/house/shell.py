"""The scripts parse, can be executed, and pass shellcheck where it is installed."""

import os
import shutil
import subprocess

from source_tree import ROOT, report

SCRIPTS = ["run.sh", "test.sh", ".ci/run"]
SOURCED = ["setup.sh", "tests/support/postgres.sh"]

findings = [f"{name}: not executable" for name in SCRIPTS if not os.access(ROOT / name, os.X_OK)]
checks = [["bash", "-n"]]
if shutil.which("shellcheck"):
    checks.append(["shellcheck", "-x"])
else:
    print("without shellcheck, which is not installed: only bash -n")
for check in checks:
    for name in SCRIPTS + SOURCED:
        run = subprocess.run([*check, name], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, check=False)
        if run.returncode != 0:
            findings.append(f"{' '.join(check)} {name}:\n{run.stdout}")
report("sound shell", findings)
