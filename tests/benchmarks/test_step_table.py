"""The table of training steps is complete, its parts add up, and its counts are what they say."""

from __future__ import annotations

import pytest
import torch

from benchmarks import step, step_gpu
from benchmarks.loss_alone import leaves
from benchmarks.parts import Stopwatch
from benchmarks.products import Products
from benchmarks.scene import TINY, Shape, halfway, pair
from segkd.methods import registry
from segkd.training.device import Place

PLACE = Place(torch.device("cpu"), channels_last=True)


def rows(text: str) -> list[list[str]]:
    """Cells of every line of the table but the rule."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_the_table_holds_what_was_asked_for(capsys):
    step.main(["--tiny", "--repeat", "1", "--only", "none", "--only", "skd"])
    said = capsys.readouterr().out
    header, *found = rows(said)
    assert [row[0] for row in found] == ["none", "skd"]
    assert all(len(row) == len(header) == 10 for row in found)
    assert torch.__version__ in said and "x0.125 teaches deeplabv3/resnet18 x0.0625" in said
    assert [float(row[2]) > 0 for row in found] == [False, True]
    for _, ratio, loss, _, optimiser, books, *_ in found:
        assert float(ratio) > 1 and float(optimiser) > 0 and 0 < float(books.rstrip("%")) < 100
        added = (1 + float(loss) + float(optimiser)) / (1 - float(books.rstrip("%")) / 100)
        assert float(ratio) == pytest.approx(added, rel=0.02)


def test_every_method_has_a_row():
    assert step.methods() == ["none", *registry.available()]


@pytest.mark.parametrize("name", ["attnfd", "cirkd", "skd"])
def test_a_loss_by_itself_is_the_one_in_the_step(name):
    made, labels = pair(name, TINY, PLACE), torch.randint(0, TINY.classes, (TINY.batch, *TINY.crop))
    images = torch.randn(TINY.batch, 3, *TINY.crop)
    outputs, taught = made.student(images), made.teacher(images)
    again, alone = pair(name, TINY, PLACE), leaves(outputs)
    values = []
    for one, student in ((made, outputs), (again, alone)):
        torch.manual_seed(1)
        values.append(sum(one.method(student, taught, labels, halfway(TINY)).values()))
    assert torch.equal(*values)
    values[1].backward()
    maps = [alone.logits, alone.embedding, *(x for one in (*alone.stages, *alone.head.values()) for x in one)]
    assert any(one.grad is not None and one.grad.any() for one in [*maps, *alone.attention.values()])
    assert all(one.grad is None for one in made.student.parameters())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_unknown_names_are_refused_with_those_that_there_are(device):
    with pytest.raises(SystemExit, match="no method is called kdd; there are: none, af-dcd"):
        step.main(["--only", "kd", "--only", "kdd", "--device", device])


def test_sizes_come_from_the_command_line():
    words = ["--student", "fcn/resnet18/0.25", "--crop", "64", "96", "--batch", "3", "--classes", "7"]
    sizes = step.chosen_sizes(step.arguments(words))
    assert (sizes.student, sizes.crop, sizes.batch, sizes.classes) == (Shape("fcn", "resnet18", 0.25), (64, 96), 3, 7)
    assert step.chosen_sizes(step.arguments(["--device", "cuda"])).batch == 8


def test_a_stopwatch_counts_only_what_it_is_put_around():
    now = [0.0]
    watch = Stopwatch(lambda: now[0])

    def spend(seconds: float) -> None:
        now[0] += seconds

    work = watch.timed("work", spend)
    work(2.0)
    spend(5.0)
    work(1.0)
    assert watch.lap() == {"work": 3.0}
    assert watch.lap() == {}


def test_products_are_counted_forward_and_backward():
    rows, weight = torch.randn(5, 7), torch.randn(7, 3, requires_grad=True)
    with Products() as counted:
        (rows @ weight).sum().backward()
    assert counted.operations == 2 * (2 * 5 * 7 * 3)


def test_pairs_are_the_same_each_time_and_their_teacher_is_frozen():
    one, two = pair("kd", TINY, PLACE), pair("kd", TINY, PLACE)
    for first, second in ((one.student, two.student), (one.teacher, two.teacher)):
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not one.teacher.training and not any(p.requires_grad for p in one.teacher.parameters())
    assert one.student.training


def test_the_table_for_a_gpu_is_complete_on_a_cpu_too():
    lines = list(step_gpu.table(["none", "kd"], TINY, "cpu", 1))
    header, *found = rows("\n".join(lines))
    assert [row[:2] for row in found] == [[name, form] for name in ("none", "kd") for form in ("plain", "segkd")]
    assert all(len(row) == len(header) == 8 for row in found)
    assert all(float(row[2]) > 0 and float(row[4]) > 0 for row in found)
    assert [row[3] for row in found if row[1] == "plain"] == ["1.00", "1.00"]


def test_a_form_that_does_not_fit_says_so_and_the_next_one_is_measured(monkeypatch):
    def measured(name: str, form: str, *_: object) -> step_gpu.Measured:
        if form == "plain":
            raise torch.OutOfMemoryError("full")
        return step_gpu.Measured(seconds=0.5, memory=step_gpu.GIBI, waits=0.25)

    monkeypatch.setattr(step_gpu, "measure", measured)
    monkeypatch.setattr(step_gpu, "operations", lambda *_: 10)
    plain, ours = step_gpu.rows("kd", None, TINY, "cpu", 1, ("plain", "segkd"), 80.0)
    assert "| plain | out of memory |" in plain
    assert ours == "| kd | segkd | 4.0 |  | 500.0 | 1.00 | 25.0% | 0.2 |"
