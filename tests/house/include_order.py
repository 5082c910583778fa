"""Folders stand in order of dependency: a file includes its own folder and those above it.

The tables are the architecture. A header of a library that no row names is refused too, so that a
new dependency is a decision and not an accident.
"""

import re

from source_tree import report, sources

# Each folder may include itself and the folders before it in this list.
ORDER = ["kernels", "runtime", "actors", "gateway"]

# Inside runtime the same holds; files directly in runtime/ belong to all.
RUNTIME_ORDER = ["memory", "formats", "shelf", "text", "model", "train", "lease", "serve",
                 "transport", "store"]

# The command line is a client of the HTTP side: of the gateway it knows only how to start it.
COMMAND_MAY_INCLUDE = ["gateway/command/", "gateway/platform.hpp", "runtime/", "kernels/"]

# Who may include which library, by the beginning of the header's name and of the file's path.
LIBRARIES = {
    "cuda": ["kernels/cuda/"],
    "cublas": ["kernels/cuda/"],
    "nccl": ["kernels/cuda/", "runtime/transport/"],
    "ucp/": ["runtime/transport/"],
    "ucs/": ["runtime/transport/"],
    "sqlite3": ["runtime/store/"],
    "libpq": ["runtime/store/"],
    "simdjson": ["runtime/", "gateway/"],
    "toml++/": ["runtime/settings"],
    "fmt/": ["runtime/", "actors/", "gateway/"],
    "spdlog/": ["runtime/", "actors/", "gateway/"],
    "pcre2": ["runtime/text/"],
    "unicode/": ["runtime/text/"],
    "curl/": ["runtime/model/"],
    "openssl/": ["runtime/shelf/", "runtime/model/", "runtime/train/", "runtime/serve/",
                 "runtime/memory/", "runtime/store/", "runtime/transport/", "gateway/"],
    "caf/": ["actors/", "gateway/"],
    "boost/context/": ["runtime/paused_call"],
    "boost/": ["gateway/"],
    "CLI/": ["gateway/command/"],
    "editline/": ["gateway/command/"],
    "cairo": ["gateway/command/"],
}
# These speak to the operating system and may stand anywhere.
SYSTEM = ["sys/", "netinet/", "arpa/", "linux/"]
# It names the version of everything that is linked, so it includes everything.
MAY_INCLUDE_ALL = "gateway/command/linked_versions.cpp"

INCLUDE = re.compile(r'^#\s*include\s+([<"])([^>"]+)[>"]', re.M)


def folder_fault(path, header):
    """Why `path` may not include the project's own `header`; None when it may."""
    if path.startswith("gateway/command/"):
        if not any(header.startswith(allowed) for allowed in COMMAND_MAY_INCLUDE):
            return "the command line knows the gateway only by gateway/platform.hpp"
    ours, theirs = path.split("/")[0], header.split("/")[0]
    if ORDER.index(theirs) > ORDER.index(ours):
        return f"{ours} stands above {theirs}"
    if ours == theirs == "runtime":
        folder, wanted = path.split("/")[1], header.split("/")[1]
        if "." in wanted:
            return None
        if "." in folder:
            return f"runtime's own files stand above runtime/{wanted}"
        for name in (folder, wanted):
            if name not in RUNTIME_ORDER:
                return f"runtime/{name} has no place in the order yet: give it one in this test"
        if RUNTIME_ORDER.index(wanted) > RUNTIME_ORDER.index(folder):
            return f"runtime/{folder} stands above runtime/{wanted}"
    return None


def library_fault(path, header):
    """Why `path` may not include a library's `header`; None when it may."""
    for name, folders in LIBRARIES.items():
        if header.startswith(name):
            if any(path.startswith(folder) for folder in folders):
                return None
            return f"{name.rstrip('/')} may be included in {', '.join(folders)} only"
    if "/" in header and not any(header.startswith(name) for name in SYSTEM):
        return "a library that no folder owns: name its owner in this test"
    return None


findings = []
for path, text in sources(ORDER):
    angled_before = False
    for match in INCLUDE.finditer(text):
        bracket, header = match.groups()
        where = f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
        if path == MAY_INCLUDE_ALL:
            continue
        if header.split("/")[0] in ORDER:
            fault = folder_fault(path, header)
            if bracket == "<":
                fault = "our own headers are included with quotes"
            elif angled_before:
                fault = fault or "our own headers stand before libraries' and std's"
        else:
            angled_before = angled_before or bracket == "<"
            fault = library_fault(path, header)
        if fault:
            findings.append(f"{where}: {header}: {fault}")
    own = re.sub(r"\.cpp$", ".hpp", path)
    first = INCLUDE.search(text)
    if own != path and any(m.group(2) == own for m in INCLUDE.finditer(text)):
        if first.group(2) != own:
            findings.append(f"{path}: its own header {own} is not its first include")

report("include order", findings)
