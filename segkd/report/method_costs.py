"""What a method adds to a stated pair of networks: modules, and memory kept for backward. Nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segkd.config.network import Backbone, NetworkConfig
from segkd.methods.base import Method, MethodConfig, Pretraining, Progress
from segkd.networks.build import build
from segkd.networks.outputs import Channels, Map, Outputs, Stage

CLASSES = 21
NARROW = 4  # maps have a quarter of their channels where memory is measured, so that it takes no more than seconds
IMAGES, SIDE = 2, 129
HALFWAY = Progress(iteration=500, iterations=1000, epoch=5, epochs=10)
PAIR = "DeepLabV3+ on ResNet-101 teaches DeepLabV3+ on ResNet-18, both with output stride 16 and 21 classes"
MEASURED = f"{IMAGES} images of {SIDE} x {SIDE} pixels and maps of a quarter of the channels, float32"


class Module(NamedTuple):
    """A module of a method: its kind in words, who trains it, parameters (trained, in all) and numbers in buffers."""

    name: str
    kind: str
    trained_by: str
    trained: int
    parameters: int
    buffers: int


class Kept(NamedTuple):
    """The student's maps that get a gradient, and bytes kept for it beside them, as a multiple of theirs."""

    maps: tuple[str, ...]
    ratio: float


@cache
def pair() -> tuple[Channels, Channels]:
    """Channels of the stated student and teacher; the teacher has attention, for those methods that read it."""

    def channels(backbone: Backbone, **more: str) -> Channels:
        described = {"head": "deeplabv3plus", "backbone": backbone, "output_stride": 16} | more
        return build(NetworkConfig.model_validate(described), CLASSES).channels

    with torch.device("meta"):
        return channels("resnet18"), channels("resnet101", attention="cbam")


def modules(cls: type[Method], config: MethodConfig) -> list[Module]:
    """The modules that a method brings along for the stated pair."""
    with torch.device("meta"):
        method = cls(config, *pair(), CLASSES)
    owners = {id(x): f"{one.kind} of its own, lr {one.lr:g}" for one in method.own_optimisers() for x in one.parameters}
    rate = "" if cls.factor == 1 else f", {cls.factor:g} times the learning rate"
    return [_module(name, one, owners, f"the student's optimiser{rate}") for name, one in method.named_children()]


def _module(name: str, module: nn.Module, owners: dict[int, str], usual: str) -> Module:
    trained = [x for x in module.parameters() if x.requires_grad]
    by = sorted({owners.get(id(x), usual) for x in trained}) or ["not trained"]
    own = module.values() if isinstance(module, nn.ModuleDict) else [module]
    kinds = dict.fromkeys(map(_kind, own))
    return Module(
        name,
        ", ".join(kinds),
        "; ".join(by),
        _numbers(trained),
        _numbers(module.parameters()),
        _numbers(x for x in module.buffers() if x.ndim),
    )


def _kind(module: nn.Module) -> str:
    if type(module) is nn.Sequential:
        return "-".join(map(_kind, module))
    size = "x".join(map(str, module.kernel_size)) + " " if isinstance(module, nn.Conv2d) else ""
    return size + type(module).__name__


def _numbers(tensors: Iterable[Tensor]) -> int:
    return sum(x.numel() for x in tensors)


def pretraining(cls: type[Method], config: MethodConfig) -> tuple[Pretraining, int] | None:
    """What is trained on the teacher beforehand, with its number of parameters; None for most methods."""
    with torch.device("meta"):
        module = cls.pretraining(config, *pair(), CLASSES)
    return None if module is None else (module, _numbers(module.parameters()))


def kept(cls: type[Method], config: MethodConfig) -> Kept:
    """Run the method's loss once on drawn maps, halfway through training, and count what autograd keeps for it.

    Counted once each: storages that are neither the student's own maps nor parameters or buffers of the method.
    """
    with _scene(cls, config) as (method, student, teacher, labels):
        own = [*_named(student).values(), *method.parameters(), *method.buffers()]
        total, sizes = _watched(method, student, teacher, labels, {_place(x) for x in own})
    reached = _leaves(total)
    read = {name: x for name, x in _named(student).items() if id(x) in reached}
    return Kept(tuple(read), sum(sizes) / sum(x.nbytes for x in read.values()))


def reads_labels(cls: type[Method], config: MethodConfig) -> bool:
    """Whether labels that say to ignore all pixels change the loss of the same maps."""

    def loss(ignored: bool) -> Tensor:
        with _scene(cls, config) as (method, student, teacher, labels), torch.no_grad():
            terms = method(student, teacher, torch.full_like(labels, 255) if ignored else labels, HALFWAY)
            return torch.stack(list(terms.values())).sum()

    return not torch.equal(loss(False), loss(True))


@contextmanager
def _scene(cls: type[Method], config: MethodConfig) -> Iterator[tuple[Method, Outputs, Outputs, Tensor]]:
    """A method for the pair with narrow maps, both networks' outputs and labels: the same at every call."""
    shapes = _narrowed(pair()[0]), _narrowed(pair()[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = cls(config, *shapes, CLASSES)
        before = cls.pretraining(config, *shapes, CLASSES)
        if before is not None:
            method.adopt(before)
        student, teacher = _drawn(shapes[0], grad=True), _drawn(shapes[1], grad=False)
        labels = torch.randint(CLASSES, (IMAGES, SIDE, SIDE))
        yield method, student, teacher, labels


def _watched(
    method: Method, student: Outputs, teacher: Outputs, labels: Tensor, own: set[int]
) -> tuple[Tensor, list[int]]:
    found: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        if _place(x) not in own:
            found[_place(x)] = x  # held, so that no other storage can come to lie at its place
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        terms = method(student, teacher, labels, HALFWAY)
        total = torch.stack(list(terms.values())).sum()
    return total, [x.untyped_storage().nbytes() for x in found.values()]


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _leaves(total: Tensor) -> set[int]:
    """ids of all tensors that get a gradient from `total`."""
    waiting, seen, leaves = [total.grad_fn], set[object](), set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        waiting += [following for following, _ in node.next_functions]
    return leaves


def _narrowed(one: Channels) -> Channels:
    def narrow(x: Map) -> Map:
        return Map(x.channels // NARROW, x.stride)

    return Channels(
        one.logits,
        narrow(one.embedding),
        tuple(map(narrow, one.stages)),
        None,
        {name: narrow(x) for name, x in one.head.items()},
        {name: narrow(x) for name, x in one.attention.items()},
    )


def _drawn(one: Channels, *, grad: bool) -> Outputs:
    def draw(x: Map) -> Tensor:
        side = -(-SIDE // x.stride)
        return torch.randn(IMAGES, x.channels, side, side, requires_grad=grad)

    return Outputs(
        draw(one.logits),
        draw(one.embedding),
        tuple(Stage(draw(x), draw(x)) for x in one.stages),
        None,
        {name: Stage(draw(x), draw(x)) for name, x in one.head.items()},
        {name: draw(x) for name, x in one.attention.items()},
    )


def _named(outputs: Outputs) -> dict[str, Tensor]:
    """Every map of `outputs` under a name that a reader understands."""
    stages = {f"stage {number}": stage for number, stage in enumerate(outputs.stages, 1)} | dict(outputs.head)
    pre = {f"{name} before its ReLU": stage.pre for name, stage in stages.items()}
    post = {name: stage.post for name, stage in stages.items()}
    return {"logits": outputs.logits, "embedding": outputs.embedding} | pre | post
