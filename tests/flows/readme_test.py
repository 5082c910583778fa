"""The README's examples are run as they stand, so that they cannot go stale.

Usage: readme_test.py TANDEM [FILE...]   (README.md when no file is given)

Fenced blocks tagged `sh run` and `python run` are run in order against a platform of this test;
`build/tandem` and port 8000 in them stand for its binary and its port. A block tagged `text output`
right after one lists what must be in its output, line by line; a line that is only `...` stands for
anything.
"""

import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from platform_under_test import ROOT, SKIPPED, Platform, quickstart_model  # noqa: E402

BLOCK = re.compile(r"^```(\S+) (run|output)\n(.*?)^```$", re.M | re.S)


def examples(text):
    """[language, code, expected lines, line number] of each block that is run."""
    found = []
    for match in BLOCK.finditer(text):
        language, kind, body = match.groups()
        if kind == "run":
            found.append([language, body, [], text.count("\n", 0, match.start()) + 1])
        elif found:
            found[-1][2] = [line.strip() for line in body.splitlines() if line.strip() not in ("", "...")]
    return found


def command_of(language, code):
    if language == "sh":
        return ["bash", "-euo", "pipefail", "-c", code]
    python = ROOT / "build" / "venv" / "bin" / "python"
    return [str(python if python.exists() else sys.executable), "-c", code]


def main(binary, files):
    runs = [(file, *example) for file in files for example in examples(file.read_text(encoding="utf-8"))]
    if not runs:
        sys.exit("no block tagged `sh run` in " + ", ".join(str(file) for file in files))
    failures = 0
    with Platform(binary, quickstart_model()) as platform:
        port = platform.address.rsplit(":", 1)[1]
        environment = dict(os.environ, TANDEM_ADDRESS=platform.address)
        for file, language, code, expected, line in runs:
            code = code.replace("build/tandem", str(binary)).replace(":8000", ":" + port)
            run = subprocess.run(command_of(language, code), cwd=ROOT, env=environment, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
                                 stdin=subprocess.DEVNULL, check=False)
            missing = [words for words in expected if words not in run.stdout]
            good = run.returncode == 0 and not missing
            failures += not good
            print(f"{'ok' if good else 'FAILED'}: {file.name}:{line}")
            if not good:
                print(f"{code}\nexit status {run.returncode}, missing {missing}, output:\n{run.stdout}")
    print(f"{len(runs)} examples, {failures} failed; platform ended with {platform.exit_status}")
    sys.exit(1 if failures or platform.exit_status != 0 else 0)


if __name__ == "__main__":
    if not (ROOT / "README.md").exists() and len(sys.argv) < 3:
        print("skipped: there is no README.md yet")
        sys.exit(SKIPPED)
    given = [pathlib.Path(name) for name in sys.argv[2:]] or [ROOT / "README.md"]
    main(pathlib.Path(sys.argv[1]).resolve(), given)
