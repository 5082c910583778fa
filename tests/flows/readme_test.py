"""The README's examples are run as they stand, so that they cannot go stale.

Fenced blocks tagged `sh run` and `python run` are run in order against a platform of this test;
`build/tandem` and port 8000 in them stand for its binary and its port. A block tagged `text output`
right after one lists what must be in its output, line by line; a line that is only `...` stands for
anything. Other files may be given as arguments.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support.tandem_server import BINARY, SOURCE, Server, fresh_home  # noqa: E402

BLOCK = re.compile(r"^```(\S+) (run|output)\n(.*?)^```$", re.M | re.S)


def examples(text):
    """[language, code, expected lines, line number] of each block that is run."""
    found = []
    for match in BLOCK.finditer(text):
        language, kind, body = match.groups()
        if kind == "run":
            found.append([language, body, [], text.count("\n", 0, match.start()) + 1])
        elif found:
            lines = [line.strip() for line in body.splitlines()]
            found[-1][2] = [line for line in lines if line not in ("", "...")]
    return found


def command_of(language, code):
    if language == "sh":
        return ["bash", "-euo", "pipefail", "-c", code]
    return [sys.executable, "-c", code]


def run_example(server, home, file, language, code, expected, line):
    """True when the example ended well and said what it should."""
    code = code.replace("build/tandem", str(BINARY)).replace(":8000", f":{server.host_port[1]}")
    run = subprocess.run(command_of(language, code), cwd=SOURCE, text=True, timeout=120,
                         env=dict(os.environ, TANDEM_ADDRESS=server.address, TANDEM_HOME=home),
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         stdin=subprocess.DEVNULL, check=False)
    missing = [words for words in expected if words not in run.stdout]
    good = run.returncode == 0 and not missing
    print(f"{'ok' if good else 'FAILED'}: {file.name}:{line}")
    if not good:
        print(f"{code}\nexit status {run.returncode}, missing {missing}, output:\n{run.stdout}")
    return good


def main(files):
    runs = [(file, *example) for file in files
            for example in examples(file.read_text(encoding="utf-8"))]
    if not runs:
        sys.exit("no block tagged `sh run` in " + ", ".join(str(file) for file in files))
    # A home of its own, so that what the examples train and launch stays here.
    with tempfile.TemporaryDirectory() as scratch:
        home = fresh_home(scratch)
        with Server(TANDEM_HOME=home) as server:
            good = [run_example(server, home, *run) for run in runs]
            ended = server.end()
    print(f"{len(runs)} examples, {good.count(False)} failed; the platform ended with {ended}")
    sys.exit(0 if all(good) and ended == 0 else 1)


if __name__ == "__main__":
    main([pathlib.Path(name) for name in sys.argv[1:]] or [SOURCE / "README.md"])
