"""Run a command from a process that is itself small, and write down what it took.

A child counts among its peak what its parent held when it was started, and the benchmark holds
much.  Called by `measure.run`: timed.py RESULT COMMAND...
"""

import os
import sys
import time

result, *command = sys.argv[1:]
begin = time.monotonic()
child = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(child, 0)
took = time.monotonic() - begin
with open(result, "w") as out:  # noqa: PTH123 - pathlib would make it larger
    out.write(f"{took} {usage.ru_maxrss * 1024 / 1e6}")
sys.exit(os.waitstatus_to_exitcode(status))
