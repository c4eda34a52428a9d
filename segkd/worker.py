"""One of the processes of a run; `segkd.training.launch` starts it: python -m segkd.worker STEP RUN OPTIONS OUTCOME."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from segkd import steps
from segkd.config.runs import Run
from segkd.errors import SegkdError
from segkd.files import write_json
from segkd.training.signals import StopRequest


def main(step: str, run: str, options: str, outcome: str) -> None:
    """Do a step of a run; an error that a user can act on goes to the file `outcome`, once, instead of the terminal."""
    for one in (signal.SIGINT, signal.SIGTERM):  # they may reach all processes at once; the one that started them asks
        signal.signal(one, signal.SIG_IGN)
    StopRequest.signals = (signal.SIGUSR1,)
    level = logging.WARNING if int(os.environ["RANK"]) else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    words = json.loads(options)
    try:
        getattr(steps, step)(Run.parse(run), steps.Options(**words | {"root": Path(words["root"])}))
    except SegkdError as error:
        write_json(Path(outcome), {"kind": type(error).__name__, "message": str(error)})
        sys.exit(error.exit_code)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever sent: it returns when the other end is gone
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
