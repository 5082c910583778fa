"""The project's own source files, read once, for the tests of the house's rules."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ["kernels", "runtime", "actors", "gateway", "tests", "bench"]

COMMENTS_AND_TEXTS = re.compile(
    r'R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|//[^\n]*|/\*.*?\*/', re.S)


def sources(folders=FOLDERS, endings=(".hpp", ".cpp", ".cu", ".cuh")):
    """(path from the root, text) of every source file, in order."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in endings and path.is_file():
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def bare_code(text):
    """The text with comments and string literals blanked out, line numbers kept."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group())
    return COMMENTS_AND_TEXTS.sub(blank, text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def report(rule, findings):
    """Prints what was found and ends the test with its verdict."""
    for finding in findings:
        print(finding)
    print(f"{rule}: {'%d found' % len(findings) if findings else 'kept'}")
    sys.exit(1 if findings else 0)
