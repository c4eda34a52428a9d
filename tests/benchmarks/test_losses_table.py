"""The table's two forms of every loss are the same function; the table says what was measured."""

from __future__ import annotations

import pytest
import torch

from benchmarks import losses, measure
from benchmarks.cases import CASES, NOT_WORSE, Target, chosen
from benchmarks.measure import Job, Peak, draw, step

NAMES = [f"{k}-{case.name}" for k, case in enumerate(CASES)]


@pytest.mark.parametrize("index", range(len(CASES)), ids=NAMES)
def test_both_forms_agree_to_the_last_digits_of_float64(index):
    case, job = CASES[index], Job(index, textbook=False, tiny=True)
    wide = [(x.detach().double() if x.is_floating_point() else x) for x in draw(case, job, tiny=True)]
    arguments = [x.requires_grad_(old.requires_grad) for x, old in zip(wide, draw(case, job, tiny=True), strict=True)]
    (value, gradients), (expected, slopes) = (step(f, arguments, job) for f in (case.segkd, case.textbook))
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
    for got, want in zip(gradients, slopes, strict=True):
        assert want.norm() > 0
        assert (got - want).norm() <= 1e-8 * want.norm()


@pytest.mark.parametrize("index", range(len(CASES)), ids=NAMES)
def test_bfloat16_under_autocast_is_as_exact_as_its_input(index):
    result = measure.run(Job(index, textbook=False, mode="autocast", repeat=1, tiny=True))
    assert result["value"] <= 1e-5
    assert result["gradient"] <= losses.TOLERANCE["autocast"]


def test_every_method_with_a_term_on_student_and_teacher_has_a_row():
    from segkd.methods import registry

    measured = {case.name.replace(",", " ").split()[0] for case in CASES}
    ours = {name for name in registry.available() if registry.method_class(name).__module__.startswith("segkd.")}
    assert len(ours) > 15
    assert ours <= measured


def test_peak_counts_what_was_alive_at_once_and_nothing_from_before():
    def use(mebibytes):
        torch.ones(mebibytes, measure.MEBI // 4)

    use(96)
    peak = Peak("cpu")
    use(32)
    use(64)
    assert 63 <= peak.rise() / measure.MEBI <= 70


def test_target_is_met_only_if_both_ratios_reach_it():
    target = Target(2, 40)
    assert target.met(2.0, 40.0, 1e9)
    assert not target.met(1.99, 50.0, 0)
    assert not target.met(3.0, 39.9, 0)
    assert NOT_WORSE.met(0.96, 0.96, 0)
    assert not NOT_WORSE.met(0.94, 2.0, 0)
    assert Target(below=256).met(0.1, 0.1, 255)
    assert not Target(below=256).met(9, 9, 256)


def test_rows_are_chosen_by_the_first_words_of_their_names():
    assert {CASES[k].name for k in chosen(["kd"])} == {"kd"}
    assert {CASES[k].name for k in chosen(["icsd"])} == {"icsd", "icsd, 129 to 513", "icsd, released"}
    assert {CASES[k].name for k in chosen(["icsd, 129", "sp"])} == {"icsd, 129 to 513", "sp"}
    assert chosen([]) == list(range(len(CASES)))
    with pytest.raises(ValueError, match="no loss is called kdd; there are: ka affinity"):
        chosen(["kd", "kdd"])


def test_forms_that_disagree_make_no_row_and_are_named_at_the_end(monkeypatch):
    result = {"memory": 2.0**21, "value": 1e-6, "gradient": 5e-3, "exact": 0, "textbook": 1.0, "segkd": 0.25}
    monkeypatch.setattr(losses, "_measure", lambda job: result)
    options = {"device": "cpu", "repeat": 1, "tiny": True}
    with pytest.raises(ArithmeticError, match=r"gradient differs by 5\.0e-03"):
        losses.row(0, mode="float32", **options)
    lines = losses.table([0, 1], mode="float32", **options)
    printed = []
    with pytest.raises(ArithmeticError, match=r"ka affinity: .*; affinity, not pooled: "):
        printed.extend(lines)
    assert sum("not pooled" in line for line in printed) == 0
    cells = losses.row(0, mode="autocast", **options).split(" | ")
    assert cells[2:4] == ["4.0", "1.0"]


def test_command_line_prints_the_table(capsys):
    losses.main(["--only", "sp", "--tiny", "--repeat", "1"])
    machine, _, header, rule, row = capsys.readouterr().out.splitlines()[:5]
    assert torch.__version__ in machine
    assert "threads = 1, float32" in machine
    assert row.startswith(f"| sp | {CASES[chosen(['sp'])[0]].tiny} | ")
    assert header.count("|") == rule.count("|") == row.count("|")


def test_command_line_names_the_losses_there_are():
    with pytest.raises(SystemExit, match="no loss is called nothing; there are: ka affinity"):
        losses.main(["--only", "nothing"])
