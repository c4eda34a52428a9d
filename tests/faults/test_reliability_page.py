"""docs/reliability.md says what the tests do: every promise has one, and the page is that of the markers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from reliability_page import FEWEST, PAGE, PROMISES, ROOT, Fault, rendered, slips

ENOUGH = [Fault(promise, "tests/t.py", f"fault {k}", "test_t") for promise in PROMISES for k in range(FEWEST)]


def test_the_committed_page_is_the_generated_one_and_complete() -> None:
    """By the command itself, in a process of its own: a collection within a running one would disturb it."""
    words = [sys.executable, "-m", "tests.faults.reliability_page", "--check"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= FEWEST


def test_enough_faults_for_every_promise_are_no_slip() -> None:
    assert slips(ENOUGH) == []


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_without_a_test_is_a_slip(promise: str) -> None:
    assert slips([one for one in ENOUGH if one.promise != promise]) == [f"{promise} has no test"]


def test_too_few_faults_are_a_slip() -> None:
    few = [Fault(PROMISES[k % 7], "tests/t.py", "x", f"test_{k}") for k in range(FEWEST - 1)]
    assert slips(few) == [f"{FEWEST - 1} faults, at least {FEWEST} are promised"]


def test_unknown_promises_and_empty_words_are_slips() -> None:
    wrong = [*ENOUGH, Fault("P8", "tests/t.py", "x", "test_a"), Fault("P1", "tests/t.py", " ", "test_b")]
    assert slips(wrong) == ["tests/t.py: test_a: there is no promise P8", "tests/t.py: test_b: says nothing"]


def test_only_generated_parts_change_and_cases_are_summed() -> None:
    page = PAGE.read_text(encoding="utf-8")
    made = rendered(page, [replace(one, cases=3) for one in ENOUGH])
    assert f"| **all** | **{len(ENOUGH)}** | **{3 * len(ENOUGH)}** |" in made
    assert made.split("<!-- generated")[0] == page.split("<!-- generated")[0]
    assert made.count("\n## ") == page.count("\n## ")
    assert "| fault 5 | [test_t](../tests/t.py) | 3 |" in made


def test_a_page_without_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="each of these generated parts once"):
        rendered("# Reliability\n", ENOUGH)
