"""Tags by which one searches runs in MLflow."""

from __future__ import annotations

import pytest

from segkd.config.runs import describe, resolve
from segkd.tracking.record import read_record, tags


@pytest.mark.parametrize(
    ("entry", "preset"),
    [
        ({"method": "dsd"}, "paper"),
        ({"method": "dsd", "preset": "paper"}, "paper"),
        ({"method": "dsd", "preset": "released"}, "released"),
        ({"method": "none"}, None),
    ],
)
def test_preset(project, entry, preset):
    _, plain, _, taught, _ = project.runs()
    run = plain if preset is None else taught
    project.train(run)
    config = describe(resolve(project.params, run)) | {"method": entry}
    record = read_record(project.root, run, config)._replace(config=config)
    assert tags(record, "tiny").get("preset") == preset
