"""The tables of scoring and of start-up are complete and refuse what they do not know."""

from __future__ import annotations

import pytest

from benchmarks import evaluation, startup


def rows(text: str) -> list[list[str]]:
    """Cells of every line of the table but the rule."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]


def test_every_part_of_scoring_has_a_row_and_the_counts_a_target(capsys):
    evaluation.main(["--tiny", "--repeat", "1"])
    header, *found = rows(capsys.readouterr().out)
    assert len(found) == 11 and all(len(row) == len(header) == 5 for row in found)
    shares = {row[0]: float(row[2].rstrip("%")) for row in found}
    assert shares["forward pass"] == 100
    assert [row[0] for row in found if row[3]] == [evaluation.COUNTS]
    assert shares["segkd evaluate, whole"] > shares[evaluation.COUNTS] > 0


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="backbone"):
        evaluation.main(["--tiny", "--network", "deeplabv3/resnet19"])


def test_start_up_rows_say_when_work_begins_and_when_a_wrong_name_is_answered(capsys):
    startup.main(["--repeat", "1", "--only", "prepare"])
    header, *found = rows(capsys.readouterr().out)
    assert len(header) == 5
    assert [row[0] for row in found] == ["python", "import torch, for comparison", "segkd --help", "segkd prepare"]
    begins, answers = (float(found[3][k].split()[0]) for k in (1, 4))
    assert 0 < begins < answers + 1
    assert found[2][2:4] in (["< 0.3", "yes"], ["< 0.3", "NO"])


def test_every_verb_is_known_with_words_that_it_takes():
    known = startup.verbs()
    assert known["student"] == [startup.RUN] and known["track replay"] == ["nowhere"] and known["check"] == []
    assert known["score"][::2] == ["--labels", "--predictions", "--dataset"]


def test_unknown_verbs_are_refused_with_those_that_there_are():
    with pytest.raises(SystemExit, match="no verb is called studnet; there are: autoencoder, check"):
        startup.main(["--only", "studnet"])


def test_a_process_that_ends_otherwise_is_no_measurement(tmp_path):
    with pytest.raises(RuntimeError, match="ended with 3, expected 0"):
        startup.taken("raise SystemExit(3)", [], tmp_path, 0)
