"""What every loss costs against its textbook form, as a Markdown table: python -m benchmarks.losses --help."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from benchmarks.cases import CASES, chosen
from benchmarks.measure import MEBI, Job, Mode, command

ROOT = Path(__file__).resolve().parents[1]
# relative; one sign that rounding turns in an L1 distance costs 1e-3 of the gradient; bfloat16 has 3 digits
TOLERANCE = {"float32": 3e-3, "autocast": 1e-2, "compiled": 1e-2}
VALUE_TOLERANCE = 1e-4
RESOLUTION = 0.5  # MiB: less cannot be told from what the process itself does
HEADER = (
    "loss | shape | time ratio | memory ratio | target (time / memory) | met | ms: textbook -> segkd | "
    "MiB: textbook -> segkd | value differs by | gradient differs by"
)
FOOTNOTE = "`*`: from the textbook form in float64, asked because in float32 the two differed by more than 1e-4."


def machine(device: str) -> str:
    """Processor or GPU, torch version, threads."""
    import torch

    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, torch {torch.__version__}, threads = 1"


def _measure(job: Job) -> dict[str, float]:
    """The job's result, from a process of its own. RuntimeError with its last words if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command(job), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {CASES[job.index].name!r} failed ({done.returncode}): {done.stderr[-600:]}")
    return json.loads(done.stdout.splitlines()[-1])


def row(index: int, *, device: str, mode: Mode, repeat: int, tiny: bool) -> str:
    """One line of the table. ArithmeticError where the two forms do not agree."""
    case = CASES[index]
    theirs, ours = (_measure(Job(index, textbook, device, mode, repeat, tiny)) for textbook in (True, False))
    for what, tolerance in (("value", VALUE_TOLERANCE), ("gradient", TOLERANCE[mode])):
        if not ours[what] <= tolerance:
            raise ArithmeticError(f"{case.name}: {what} differs by {ours[what]:.1e} from the textbook form's")
    mebibytes = [max(x["memory"] / MEBI, RESOLUTION) for x in (theirs, ours)]
    time, memory = ours["textbook"] / ours["segkd"], mebibytes[0] / mebibytes[1]
    cells = [
        case.name,
        str(case.tiny if tiny else case.dims),
        f"{time:.1f}",
        f"{memory:.1f}",
        str(case.target),
        "yes" if case.target.met(time, memory, mebibytes[1]) else "NO",
        f"{ours['textbook'] * 1e3:.3g} -> {ours['segkd'] * 1e3:.3g}",
        f"{mebibytes[0]:.1f} -> {mebibytes[1]:.1f}",
        *(f"{ours[what]:.0e}{'*' if ours['exact'] else ''}" for what in ("value", "gradient")),
    ]
    return f"| {' | '.join(cells)} |"


def table(indices: list[int], *, device: str, mode: Mode, repeat: int, tiny: bool) -> Iterator[str]:
    """The table, line by line as it is measured; at its end ArithmeticError if a row is missing: see `row`."""
    yield f"{machine(device)}, {'float32' if mode == 'float32' else f'bfloat16 ({mode})'}, median of {repeat}"
    yield ""
    yield f"| {HEADER} |"
    yield "|" + "---|" * (HEADER.count("|") + 1)
    faults = []
    for index in indices:
        try:
            yield row(index, device=device, mode=mode, repeat=repeat, tiny=tiny)
        except ArithmeticError as error:
            faults.append(str(error))
    yield ""
    yield FOOTNOTE
    if faults:
        raise ArithmeticError("; ".join(faults))


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="rows whose name begins so: kd, icsd, ...",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--mode", choices=get_args(Mode), help="default: float32 on a CPU, all three on a GPU")
    parser.add_argument("--repeat", type=int, default=3, help="timed passes of each form, of which the median counts")
    parser.add_argument("--tiny", action="store_true", help="tiny tensors: tries the program, measures nothing")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Print one table for each mode."""
    options = arguments(words)
    try:
        rows = chosen(options.only)
    except ValueError as error:
        raise SystemExit(f"python -m benchmarks.losses: {error}") from None
    every: tuple[Mode, ...] = get_args(Mode)
    modes = (options.mode,) if options.mode else every[:1] if options.device == "cpu" else every
    for mode in modes:
        lines = table(rows, device=options.device, mode=mode, repeat=options.repeat, tiny=options.tiny)
        for line in lines:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
