"""What the README shows, for flows that run it in a world of their own."""
import re

from support.tandem_server import SOURCE


def block(tag):
    """The text of the one fenced block with this tag, such as `sh hosts`."""
    text = (SOURCE / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"^```{re.escape(tag)}\n(.*?)^```$", text, re.M | re.S)
    if len(found) != 1:
        raise LookupError(f"README.md has {len(found)} blocks tagged {tag}")
    return found[0]


def command(tag, **replacements):
    """The words behind `build/tandem` in a block of one command."""
    line = block(tag).strip()
    for old, new in replacements.items():
        line = re.sub(rf"--{old}[ =]\S+", f"--{old}={new}", line)
    words = line.split()
    if words[0] != "build/tandem" or "\n" in line:
        raise LookupError(f"README.md: {line} is no single command of build/tandem")
    return words[1:]
