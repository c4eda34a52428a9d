"""Every row of the table: a loss in both forms, what it is measured on, and its target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from torch import Tensor

from benchmarks import inputs
from benchmarks.inputs import Dims, Inputs
from benchmarks.textbook import features, logits, relations
from segkd.methods import af_dcd, at, attnfd, cirkd, cwd, dist, dsd, fitnet, ickd, icsd, ifvd, ka, kd, mgd, skd, sp
from segkd.methods.overhaul import overhaul_loss
from segkd.ops.gram import gram_distance

Loss = Callable[..., Tensor]
NOISE = 0.05  # by which "not slower" and "not worse" may be missed: as much as repeated measurements differ


class Target(NamedTuple):
    """Ratios textbook / segkd to reach; where `below` is given, MiB that segkd's form must stay under instead."""

    time: float = 1.0
    memory: float = 1.0
    below: float | None = None

    def __str__(self) -> str:
        if self.below is not None:
            return f"under {self.below:.0f} MiB: no N x N matrix kept"
        time = "not slower" if self.time == 1 else f">= {self.time:g}x"
        return f"{time} / " + ("not worse" if self.memory == 1 else f">= {self.memory:g}x")

    def met(self, time: float, memory: float, mebibytes: float) -> bool:
        """Whether measured ratios, and the memory of segkd's form, reach it."""
        if self.below is not None:
            return mebibytes < self.below
        pairs = ((time, self.time), (memory, self.memory))
        return all(got >= (1 - NOISE if asked == 1 else asked) for got, asked in pairs)


NOT_WORSE = Target()


@dataclass(frozen=True)
class Case:
    """One row. `draw(dims)` gives the arguments of both forms; those that require a gradient are differentiated."""

    name: str
    textbook: Loss
    segkd: Loss
    draw: Callable[[Dims], Inputs]
    dims: Dims
    target: Target = NOT_WORSE
    pairs_in_loops: bool = False  # its textbook form would take minutes to compile

    @property
    def tiny(self) -> Dims:
        """The same row for tests: seconds become milliseconds."""
        d, odd = self.dims, self.dims.height % 2
        width = 5 if d.student == d.classes else 16
        same = d.student == d.teacher
        return Dims(2, width if same else 8, width, *((9, 9) if odd else (16, 16)), 5)


def _listed(loss: Callable[[list[Tensor], list[Tensor]], Tensor]) -> Loss:
    """A loss of two lists as a function of their elements, the student's first."""
    return lambda *maps: loss(list(maps[: len(maps) // 2]), list(maps[len(maps) // 2 :]))


def _at_labels(loss: Loss) -> Loss:
    """A loss at the size of labels, which are handed over for their size alone."""
    return lambda s, t, y: loss(s, t, size=tuple(y.shape[-2:]))


def _affinity(s: Tensor, t: Tensor) -> Tensor:
    return gram_distance(s, t, scale=1 / (s.shape[0] * s.shape[2:].numel() ** 2), norm="unit")


def _memories(s: Tensor, t: Tensor, y: Tensor, pixel: Tensor, region: Tensor) -> Tensor:
    return cirkd.memory_loss(s, t, y, pixel) + cirkd.memory_loss(s, t, y, region)


def _attnfd(loss: Callable[..., Tensor]) -> Loss:
    return lambda s, t: loss([s], [t])


PAIR, LABELLED = inputs.pair, inputs.labelled


def _ifvd(dims: Dims, target: Target) -> Case:
    textbook, ours = (partial(loss, classes=dims.classes) for loss in (relations.ifvd, ifvd.ifvd_loss))
    return Case("ifvd", textbook, ours, LABELLED, dims, target)


CITY = Dims()  # crops of 512 x 1024 at stride 8: N = 64 x 128, 19 classes
VOC = Dims(height=129, width=129, classes=21)  # crops of 513 x 513 at stride 4
SAME = replace(CITY, student=512)
ONE = replace(CITY, images=1, teacher=128)
CITY_LOGITS = replace(CITY, student=19, teacher=19)
VOC_LOGITS = replace(VOC, student=21, teacher=21)
IMAGE_LOGITS = replace(VOC_LOGITS, height=513, width=513)

TARGETED = [
    Case("ka affinity", relations.ka_affinity, ka.affinity_loss, PAIR, ONE, Target(below=4 * 8192**2 / 2**20)),
    Case("affinity, not pooled", relations.affinity, _affinity, PAIR, ONE, Target(20, 20)),
    Case("affinity, not pooled", relations.affinity, _affinity, PAIR, replace(ONE, teacher=256), Target(20, 20)),
    _ifvd(CITY, Target(15, 12)),
    _ifvd(VOC, Target(30, 12)),
    Case("icsd", logits.icsd, icsd.icsd_loss, PAIR, IMAGE_LOGITS, Target(20, 1), pairs_in_loops=True),
    Case("skd pooled", relations.skd_pooled, skd.pairwise_cirkd_loss, PAIR, CITY, Target(3, 4)),
    Case("skd pooled", relations.skd_pooled, skd.pairwise_cirkd_loss, PAIR, VOC, Target(6, 8)),
    Case(
        "cirkd minibatch",
        relations.cirkd_minibatch,
        cirkd.minibatch_loss,
        PAIR,
        replace(CITY, teacher=256),
        Target(2, 40),
    ),
    Case(
        "cirkd memory, both terms",
        relations.cirkd_memory,
        _memories,
        inputs.remembered,
        replace(CITY, student=256, teacher=256),
        Target(1.8, 20),
    ),
    Case("kd", logits.kd, kd.kd_loss, PAIR, IMAGE_LOGITS, Target(3, 2.5)),
    Case("cwd logits", logits.cwd, cwd.cwd_loss, PAIR, IMAGE_LOGITS, Target(2, 2.5)),
]
OTHERS = [
    Case("kd", logits.kd, kd.kd_loss, PAIR, CITY_LOGITS),
    Case("cwd logits", logits.cwd, cwd.cwd_loss, PAIR, CITY_LOGITS),
    Case("cwd feature", features.cwd, cwd.cwd_loss, inputs.connected, CITY),
    Case("cwd feature", features.cwd, cwd.cwd_loss, inputs.connected, VOC),
    Case("fitnet", features.fitnet, fitnet.fitnet_loss, inputs.connected, CITY),
    Case("fitnet", features.fitnet, fitnet.fitnet_loss, inputs.connected, VOC),
    Case("at", features.at, at.at_loss, PAIR, CITY),
    Case("at", features.at, at.at_loss, PAIR, VOC),
    Case("ka adaptation", features.ka_adaptation, ka.adaptation_loss, PAIR, replace(CITY, teacher=128)),
    Case("ka adaptation", features.ka_adaptation, ka.adaptation_loss, PAIR, replace(VOC, teacher=128)),
    Case("skd nodes", relations.skd_nodes, skd.pairwise_loss, PAIR, CITY),
    Case("skd pixel, released", logits.soft_cross_entropy, skd.pixelwise_released_loss, PAIR, IMAGE_LOGITS),
    Case("dsd psd", _listed(features.psd), _listed(dsd.psd_loss), inputs.levels, CITY),
    Case("dsd psd, released", _listed(features.psd_released), _listed(dsd.psd_released_loss), inputs.levels, CITY),
    Case("dsd csd", logits.csd, dsd.csd_loss, PAIR, CITY_LOGITS),
    Case("dsd csd", logits.csd, dsd.csd_loss, PAIR, IMAGE_LOGITS),
    Case("dsd csd, released", logits.csd_released, dsd.csd_released_loss, PAIR, IMAGE_LOGITS),
    Case("icsd", logits.icsd, icsd.icsd_loss, PAIR, CITY_LOGITS, pairs_in_loops=True),
    Case(
        "icsd, 129 to 513",
        _at_labels(logits.icsd),
        _at_labels(icsd.icsd_loss),
        LABELLED,
        VOC_LOGITS,
        pairs_in_loops=True,
    ),
    Case("icsd, released", logits.icsd_released, icsd.icsd_released_loss, PAIR, IMAGE_LOGITS, pairs_in_loops=True),
    Case("aicsd kd, 129 to 513", _at_labels(logits.kd_upsampled), _at_labels(icsd.pixel_loss), LABELLED, VOC_LOGITS),
    Case(
        "aicsd task, 129 to 513",
        logits.cross_entropy_upsampled,
        icsd.released_task_loss,
        inputs.judged,
        VOC_LOGITS,
    ),
    Case("attnfd, one map", features.attnfd, _attnfd(attnfd.attnfd_loss), PAIR, SAME),
    Case("attnfd, one map, released", features.attnfd_released, _attnfd(attnfd.attnfd_released_loss), PAIR, SAME),
    Case("overhaul, one map", features.overhaul, overhaul_loss, inputs.margins, SAME),
    Case("sp", relations.sp, sp.sp_loss, PAIR, replace(CITY, images=4)),
    Case("ickd feature", relations.ickd, ickd.ickd_loss, PAIR, SAME),
    Case("ickd logits", relations.ickd, ickd.ickd_loss, PAIR, IMAGE_LOGITS),
    Case("dist", logits.dist, dist.dist_loss, PAIR, CITY_LOGITS),
    Case("dist", logits.dist, dist.dist_loss, PAIR, IMAGE_LOGITS),
    Case("mgd", features.mgd, mgd.mgd_loss, PAIR, SAME),
    Case("af-dcd contrast", relations.omni_contrast, af_dcd.omni_contrast_loss, PAIR, SAME),
]
CASES = TARGETED + OTHERS


def chosen(names: list[str]) -> list[int]:
    """Indices of the rows that are called, or begin with the words of, one of `names`; all where there is none.

    ValueError, with the names that there are, if one fits nothing.
    """
    known = dict.fromkeys(case.name for case in CASES)
    fitting = {name: [k for k in known if _words(k)[: len(_words(name))] == _words(name)] for name in names}
    unknown = [name for name, found in fitting.items() if not found]
    if unknown:
        raise ValueError(f"no loss is called {', '.join(unknown)}; there are: {'; '.join(known)}")
    wanted = {k for found in fitting.values() for k in found} if names else set(known)
    return [k for k, case in enumerate(CASES) if case.name in wanted]


def _words(name: str) -> list[str]:
    return name.replace(",", " ").split()
