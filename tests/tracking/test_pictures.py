"""Sample predictions beside image and label, while the data that were scored are still there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segkd.config.runs import Run
from segkd.data.prepared import Prepared
from segkd.tracking.artifacts import sample_figure
from segkd.tracking.record import read_record

RUN = Run("digits", "small")


@pytest.mark.parametrize("same", [True, False])
def test_image_and_label_are_shown_only_of_the_data_that_were_scored(project, new_project, same):
    root = new_project()
    data = Prepared(root / "data/prepared/digits")
    folder, split = project.train(RUN), data.split("test")
    scores = json.loads((folder / "evaluation.json").read_text())
    scores |= {"classes": list(data.classes), "data_sha256": data.sha256 if same else "0" * 64}
    (folder / "evaluation.json").write_text(json.dumps(scores))
    shown = {f"prediction_{k}": np.array(split.label(k)) for k in range(2)}
    np.savez(folder / "samples.npz", ids=np.array(split.ids[:2]), **shown)

    figure = sample_figure(read_record(project.root, RUN, {}), root)

    (axes,) = figure.axes
    titles = ["image", "label", "prediction"] if same else ["prediction"]
    assert [text.get_text() for text in axes.texts] == [*split.ids[:2], *titles]
    pictures = [np.asarray(one.get_array()) for one in axes.images]
    assert len(pictures) == 2 * len(titles)
    if same:
        assert np.array_equal(pictures[0], split.image(0))
        assert np.array_equal(pictures[1], pictures[2])  # this prediction is the label
    assert (pictures[-1][shown["prediction_1"] == 255] == 255).all()
