"""Ways of being there and being no good: a clock that is hours off, a thread that stands still while
its process answers, and strangers who hold a port's places."""
import ctypes
import pathlib
import socket
import subprocess

# Of the C library: clock_gettime as everybody calls it, with the wall clock moved.
CLOCK_OFF = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t which, struct timespec *into) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(which, into);
  if (status == 0 && which == CLOCK_REALTIME) into->tv_sec += OFF_BY;
  return status;
}
time_t time(time_t *into) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (into) *into = now.tv_sec;
  return now.tv_sec;
}
"""
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
WALL = 0x40000000  # of waitpid: threads too


def clock_off_by(seconds, folder):
    """The environment of a process whose clock is so far off."""
    source = pathlib.Path(folder) / "clock.c"
    source.write_text(CLOCK_OFF)
    library = pathlib.Path(folder) / f"clock{seconds}.so"
    subprocess.run(["cc", "-shared", "-fPIC", f"-DOFF_BY={seconds}L", "-o", str(library), str(source),
                    "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


def device_thread(pid):
    """A worker's device has a thread of its own, as few of its actors do: of these the busiest."""
    def ticks(task):
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])
    own = [task for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
           if (task / "comm").read_text().strip() == "caf.actor"]
    return int(max(own, key=ticks).name)


class StandingStill:
    """One thread held by this process, as a context; the others of its process run on."""

    def __init__(self, thread):
        self.thread = thread
        self.libc = ctypes.CDLL(None, use_errno=True)

    def _ptrace(self, request):
        done = self.libc.ptrace(ctypes.c_long(request), ctypes.c_long(self.thread), None, None)
        return done == 0

    def __enter__(self):
        if not self._ptrace(PTRACE_ATTACH):
            raise PermissionError(f"thread {self.thread} cannot be held (ptrace)")
        status = ctypes.c_int()
        self.libc.waitpid(self.thread, ctypes.byref(status), WALL)
        return self

    def __exit__(self, *ignored):
        # A thread that died while it was held is this process's to bury; its own process ends then.
        if not self._ptrace(PTRACE_DETACH):
            self.libc.waitpid(self.thread, None, WALL)


class Strangers:
    """So many connections to a port, as a context: they say nothing, or what does not belong there."""

    def __init__(self, host, port, count, words=(b"",)):
        self.where, self.count, self.words = (host, port), count, words
        self.lines = []

    def __enter__(self):
        for i in range(self.count):
            try:
                line = socket.create_connection(self.where, timeout=10)
                line.sendall(self.words[i % len(self.words)])
                self.lines.append(line)
            except OSError:  # pushed out by those that came later
                continue
        return self

    def __exit__(self, *ignored):
        for line in self.lines:
            line.close()
