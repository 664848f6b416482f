"""Say what a start has found, then end as asked; for test_fork_server.py.

Usage: start_probe.py status CODE | fail TEXT | signal NUMBER | pipe DESCRIPTOR | wait FILE
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

verb, value = sys.argv[1:]
found = {
    "words": [sys.argv, sys.orig_argv],
    "folder": str(Path.cwd()),
    "mask": os.umask(0o22),
    "environment": dict(os.environ),
    "main": [__name__, __file__, vars(sys.modules["__main__"]) is globals()],
    "path": sys.path,
    "input": sys.stdin.read(),
    "buffering": [
        (stream.line_buffering, stream.write_through, stream.encoding) for stream in (sys.stdout, sys.stderr)
    ],
}
print(json.dumps(found), flush=True)
print("an aside", file=sys.stderr)
if verb == "status":
    sys.exit(int(value))
elif verb == "fail":
    raise RuntimeError(value)
elif verb == "signal":
    os.kill(os.getpid(), int(value))
elif verb == "pipe":
    os.write(int(value), b"through the pipe")
else:
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(5))
    Path(value).write_text(str(os.getpid()))
    time.sleep(60)
