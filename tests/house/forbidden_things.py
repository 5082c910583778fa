"""What no source file may hold, each with its reason."""

import re

from source_tree import ROOT, bare_code, line_of, report, sources

OURS = ["kernels", "runtime", "actors", "gateway"]

# (what to look for in code without comments and texts, where, why not)
IN_CODE = [
    (r"\b(sleep_for|sleep_until|usleep|nanosleep)\b|(?<![\w.])sleep\s*\(", ["tests"],
     "tests wait for what happens, never for time"),
    # A smart pointer's own argument is the one way to a private constructor.
    (r"(?<![\w.(])new\s+[A-Za-z_:<]|(?<!_ptr)(?<!>)\(new\s+[A-Za-z_:<]|\bmalloc\s*\(", OURS,
     "a resource is a class with a destructor"),
    (r"\bsource_location\b|\bstd::format\b", OURS + ["tests", "bench"], "clang 14 lacks it"),
    (r"\busing namespace std\s*;", OURS + ["tests", "bench"], "names of std are written out"),
    (r"\bstd::cout\b|\bprintf\s*\(", ["kernels", "runtime", "actors"],
     "only the doors speak; the engine logs"),
]
# The same over the whole text.
IN_TEXT = [
    (r"\bTODO\b|\bFIXME\b|\bXXX\b", OURS + ["tests", "bench"], "finish it or say what is refused"),
    (r"\t", OURS + ["tests", "bench"], "spaces"),
]

findings = []
for rules, cleaned in ((IN_CODE, bare_code), (IN_TEXT, lambda text: text)):
    for pattern, folders, why in rules:
        wanted = re.compile(pattern)
        for path, text in sources(folders):
            code = cleaned(text)
            for match in wanted.finditer(code):
                findings.append(f"{path}:{line_of(code, match.start())}: "
                                f"{match.group().strip() or 'tab'}: {why}")

for path in sorted((ROOT / "tests").rglob("*.py")):
    if path.parent.name == "house":
        continue  # these files name what they forbid
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if re.search(r"\bsleep\s*\(", line.split("#")[0]):
            findings.append(f"{path.relative_to(ROOT)}:{number}: sleep: tests wait for what happens")

report("forbidden things", findings)
