# With --keep-going some runs may fail and the rest go on: then a study's page is made of what there is, and counts and
# names what lacks. Such a page gets the oldest of dates: else the next call would find it there and have nothing to do.
import os
from pathlib import Path


def incomplete():
    """Studies of which some runs are scored and others are not."""
    for study in CHOICE.names:
        found = [Path(run.folder, "evaluation.json").exists() for run in runs_of(study)]
        if any(found) and not all(found):
            yield study


onerror:
    for study in incomplete() if workflow.execution_settings.keep_going else ():
        logger.info(f"segkd: some runs of {study} failed; {page(study)} says which and why")
        Path("data/logs/report").mkdir(parents=True, exist_ok=True)
        shell(f"segkd report {study} > data/logs/report/{study}.txt 2>&1 || true")
        if Path(page(study)).exists():
            os.utime(page(study), (1, 1))
        shell("segkd landing > data/logs/landing.txt 2>&1 || true")
