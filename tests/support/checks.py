"""What a flow has seen: every check is told as it is made, and the end says whether all held."""
import sys

_failures = []


def check(good, what):
    print(f"{'ok' if good else 'FAILED'}: {what}", flush=True)
    if not good:
        _failures.append(what)


def end():
    """Exit status 1 when a check failed."""
    sys.exit(f"{len(_failures)} checks failed" if _failures else 0)
