from __future__ import annotations

import pytest
import torch
from method_outputs import CLASSES, channels
from pydantic import ValidationError

from segkd.methods.aicsd import AICSD, AICSDConfig, alw_loss
from segkd.methods.base import Progress
from segkd.methods.icsd import ICSD, ICSDConfig

PROGRESS = Progress(iteration=30, iterations=120, epoch=1, epochs=5)


@pytest.mark.parametrize(
    ("options", "share", "batch_factor"),
    [
        ({}, 0.25, 1),
        ({"count": "epoch"}, 0.2, 1),
        ({"preset": "released"}, 1 / 120, 1 / 2),
        ({"preset": "released", "epochs": 10}, 0.1, 1 / 2),
    ],
)
def test_terms_and_task_are_weighted_by_alpha_and_its_complement(options, share, batch_factor, pair):
    student, teacher, labels = pair(channels(8), channels(16))
    preset = {"preset": options.get("preset", "paper")}
    adaptive = AICSD(AICSDConfig(**options), channels(8), channels(16), CLASSES)
    plain = ICSD(ICSDConfig(**preset), channels(8), channels(16), CLASSES)(student, teacher, labels, PROGRESS)
    terms = adaptive(student, teacher, labels, PROGRESS)
    torch.testing.assert_close(terms, {"icsd": share * plain["icsd"], "kd": (1 - share) * plain["kd"]})
    assert adaptive.task_weight(PROGRESS, 2) == pytest.approx(share * batch_factor)
    total = adaptive.task_weight(PROGRESS, 2) / batch_factor * 1.25 + sum(terms.values())
    torch.testing.assert_close(total, alw_loss(torch.tensor(1.25), plain["icsd"], plain["kd"], share))


def test_only_kd_acts_at_the_start():
    method = AICSD(AICSDConfig(), channels(8), channels(16), CLASSES)
    start = Progress(0, 100, 0, 4)
    assert (method.share(start), method.task_weight(start, 4)) == (0, 0)


def test_released_holds_the_student_in_epoch_0_and_passes_1_after_epoch_120():
    method = AICSD(AICSDConfig(preset="released"), channels(8), channels(16), CLASSES)
    assert not method.student_moves(Progress(5, 100, 0, 10))
    assert method.student_moves(Progress(10, 100, 1, 10))
    assert method.share(Progress(1500, 2000, 150, 200)) == 1.25


@pytest.mark.parametrize(
    "options", [{"epochs": 120}, {"preset": "released", "count": "iteration"}, {"preset": "paper", "epochs": 60}]
)
def test_keys_of_the_other_preset_are_refused(options):
    with pytest.raises(ValidationError, match="would change nothing"):
        AICSDConfig(**options)


def test_default_weight_follows_the_preset_here_too():
    assert AICSDConfig().icsd == 40
    assert AICSDConfig(preset="released").icsd == 9500
