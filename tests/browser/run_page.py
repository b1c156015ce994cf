"""`odkeras annotate` with the trainer and the model server of tests/unit/fake_processes.py; arguments as on its command
line.

`run_page.py --zygote FD` imports everything once and then forks a process per request of `zygote.py`.
"""

import contextlib
import io
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from fake_processes import use_fakes

from odkeras.cli import main


def serve_forks(connection: socket.socket) -> None:
    """Answer each line of JSON, {"start": ...} or {"wait": pid}, with a number: a process id or an exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_everything()
    children: set[int] = set()
    while True:
        text, descriptors, _, _ = socket.recv_fds(connection, 1_000_000, 1)
        while text and not text.endswith(b"\n"):
            text += connection.recv(1_000_000)
        if not text:
            break
        request = json.loads(text)
        if "start" in request:
            reply = os.fork()
            if reply == 0:
                connection.close()
                _become_annotate(descriptors[0], **request["start"])
            children.add(reply)
            os.close(descriptors[0])
        else:
            _, status = os.waitpid(request["wait"], 0)
            children.discard(request["wait"])
            reply = os.waitstatus_to_exitcode(status)
        connection.sendall(b"%d\n" % reply)
    for pid in children:  # the tests were killed
        os.kill(pid, signal.SIGTERM)


def _import_everything() -> None:
    """A command line that is refused imports what every command needs."""
    import odkeras.web.server  # noqa: F401

    sys.argv = ["odkeras", "annotate", "things", "/nowhere", "/nowhere", "--no-open"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        main()


def _become_annotate(output: int, arguments: list[str], directory: str, env: dict[str, str]) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    # Not the inherited ones: those of a file, as pytest's capture is, seek, which a pipe refuses.
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["odkeras", *arguments]
    status: Any = 1
    try:
        main()
        status = 0
    except SystemExit as error:
        status = error.code
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))


use_fakes()
if sys.argv[1:2] == ["--zygote"]:
    serve_forks(socket.socket(fileno=int(sys.argv[2])))
else:
    main()
