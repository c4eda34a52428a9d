"""The baseline makes the same kind of crops as segkd; the table is complete and refuses what it does not know."""

from __future__ import annotations

import pytest
import torch

from benchmarks import data, drawn
from benchmarks.plain_data import PlainDataset, collate
from segkd.config.data import FolderData
from segkd.config.recipe import Augmentation, Optimiser, Recipe, Scale
from segkd.data.augmentation import normalise
from segkd.data.loading import batches


def rows(text: str) -> list[list[str]]:
    """Cells of every line of the table but the rule."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_the_table_holds_what_was_asked_for(capsys):
    data.main(["--tiny", "--images", "4", "--only", "cityscapes"])
    header, *found = rows(capsys.readouterr().out)
    assert len(header) == 9
    ((name, plain, ours, ratio, target, met, memory, flat, mapped),) = found
    assert name.startswith("crops of 512 x 1024") and target == ">= 5" and {met, flat} <= {"yes", "NO"}
    assert float(ratio) == pytest.approx(float(ours) / float(plain), rel=0.05)
    assert [float(part) > 10 for part in (*memory.split(" -> "), mapped)] == [True] * 3


def test_rows_have_targets_where_there_is_one_and_end_in_evaluation():
    assert [kind.target for kind in data.KINDS.values()] == [5.0, None, None, None]
    assert [kind.crop is None for kind in data.KINDS.values()] == [False, False, True, True]


def test_unknown_rows_are_refused_with_those_that_there_are():
    with pytest.raises(SystemExit, match="no row is called ade; there are: cityscapes, voc,"):
        data.main(["--only", "ade"])


@pytest.fixture
def files(tmp_path):
    drawn.write_files(tmp_path, 4, (32, 64), 5)
    return tmp_path


def test_plain_crops_are_what_the_recipe_says(files):
    config = Augmentation(crop=(40, 24), scale=Scale(low=0.5, high=2.0))
    plain = PlainDataset(files, "train", config)
    images, labels = collate([plain[k % 4] for k in range(16)])
    assert images.shape == (16, 3, 40, 24) and images.dtype == torch.float32
    assert labels.shape == (16, 40, 24) and labels.dtype == torch.int64
    assert set(labels.unique().tolist()) <= {0, 1, 2, 3, 4, 255}
    assert (labels[:, -1] == 255).any()  # a reduced image of 32 rows is padded to 40


@pytest.mark.parametrize("workers", [0, 2])
def test_both_ways_see_every_image_whole_alike(files, tmp_path, workers):
    """At scale 1, without flip, a crop as large as the image: the same numbers from both."""
    config = Augmentation(crop=(32, 64), flip=0.0)
    recipe = Recipe(dataset="d", iterations=1, batch=4, augmentation=config, optimiser=Optimiser(name="sgd", lr=1))
    split = drawn.prepared(FolderData(kind="folder", root=str(files)), tmp_path / "out").split("train")
    (batch,) = batches(split, recipe, seed=0, start=0, stop=1, workers=workers)
    plain = PlainDataset(files, "train", config)
    order = [split.ids.index(name) for name in batch.ids]
    images, labels = collate([plain[k] for k in order])
    torch.testing.assert_close(normalise(batch.images, batch.boxes, config), images, rtol=0, atol=1e-6)
    assert torch.equal(batch.labels.long(), labels)
