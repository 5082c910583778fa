"""Every source file is as clang-format 14 leaves it. Skips, aloud, where it is not installed."""

import shutil
import subprocess
import sys

from source_tree import ROOT, report, sources

SKIPPED = 77
tool = shutil.which("clang-format-14")
if not tool:
    print("skipped: clang-format-14 is not installed")
    sys.exit(SKIPPED)

files = [path for path, _ in sources()]
run = subprocess.run([tool, "--dry-run", "--ferror-limit=1", *files], cwd=ROOT, text=True,
                     capture_output=True, check=False)
findings = sorted({line.split(":")[0] for line in run.stderr.splitlines() if "warning:" in line})
report("clang-format-14 -i", findings)
