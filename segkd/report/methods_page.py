"""docs/methods.md, written from the methods' classes: what each one computes, reads, takes, brings along and costs."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from segkd.methods.base import Method
from segkd.methods.registry import available, method_class
from segkd.report import method_costs as costs
from segkd.report import method_facts as facts

HEAD = f"""\
# Methods

Written from the classes in `segkd/methods` by `segkd methods --write docs/methods.md`: change a docstring or a Config
there, not this page.

A method is how a student learns from a teacher. An entry under `methods` in `params.yaml` names one of these, and the
hyper-parameters that differ from the defaults; `none` trains without a teacher. A method's terms are added to the
student's cross-entropy. Whatever it brings along is thrown away after training: the student is then as large and as
fast as one trained alone.

**Presets.** `paper`, the default, is what the paper defines. `released` is what the released code computes, slips
included, because that code produced the published numbers.

**Notation.** B images, N positions of the map that is read, C classes, d channels (d_s of the student, d_t of the
teacher), z logits, F features, s student, t teacher, T temperature. No gradient reaches the teacher.

**Cost.** Parameters are counted for one pair of networks:
{costs.PAIR}.
*Kept* is what autograd keeps for the method's loss and modules until the backward pass, beside the student's own maps
and all parameters, as a multiple of those maps of the student that get a gradient: 1.0 is as much again as these maps.
It is counted for {costs.MEASURED};
the step of a discriminator comes on top.

"""
MEANING = {
    "logits": "class scores before upsampling",
    "embedding": "the head's last map before the classifier",
    "stages": "maps of the backbone's four stages",
    "auxiliary": "the auxiliary head's scores, where there is one",
    "head": "maps inside the head: output of ASPP or pyramid pooling, decoder",
    "attention": "the teacher's CBAM-refined maps",
}


def methods_page() -> str:
    """The whole page as Markdown: a table of all registered methods, then a section for each."""
    classes = {name: method_class(name) for name in available()}
    owners = {cls.__module__: name for name, cls in sorted(classes.items(), reverse=True)}
    shared = dict.fromkeys(
        one.__module__ for cls in classes.values() for one in facts.definitions(cls) if one.__module__ not in owners
    )
    sections = [_section(name, cls, owners) for name, cls in classes.items()]
    return HEAD + _overview(classes) + "".join(sections) + "".join(map(_shared, shared))


def _overview(classes: dict[str, type[Method]]) -> str:
    rows = []
    for name, cls in classes.items():
        config = facts.config(cls, facts.presets(cls)[0])
        trained = sum(one.trained for one in costs.modules(cls, config))
        paper = facts.source(cls)
        what = " ".join(facts.description(cls).split("\n\n")[0].split())
        kept = f"{_kept(name, config.preset).ratio:.1f}"
        presets = ", ".join(facts.presets(cls))
        rows.append((f"[{name}](#{name})", _link(paper), what, presets, _count(trained) if trained else "none", kept))
    return _table(("method", "paper", "what it compares", "presets", "extra parameters", "kept"), rows)


@cache
def _kept(name: str, preset: str) -> costs.Kept:
    cls = method_class(name)
    return costs.kept(cls, facts.config(cls, preset))


def _section(name: str, cls: type[Method], owners: dict[str, str]) -> str:
    paper, presets = facts.source(cls), facts.presets(cls)
    why = "" if len(presets) > 1 else f" only: {facts.only_preset(cls)}"
    parts = [
        f"\n## {name}\n",
        _linked(_prose(paper.text)) + "\n",
        _prose(facts.description(cls)) + "\n",
        f"**Presets**: {' and '.join(f'`{one}`' for one in presets)}{why}.\n",
        "### Definition\n",
        _definitions(cls, owners),
        _forward(cls),
        "### Tensors\n",
        _tensors(cls),
        "### Parameters\n",
        _parameters(cls, presets),
        "### Modules and cost\n",
        _cost(cls, presets),
    ]
    return "\n".join(parts)


def _definitions(cls: type[Method], owners: dict[str, str]) -> str:
    functions = facts.definitions(cls)
    shown = [_code(one) for one in functions if one.__module__ == cls.__module__]
    places = [(one.__name__, owners.get(one.__module__, _last(one.__module__))) for one in functions[len(shown) :]]
    also = ", ".join(f"`{name}` (see [{place}](#{place}))" for name, place in places)
    return "\n".join([*shown, *([f"Beside these: {also}.\n"] if also else [])])


def _last(module: str) -> str:
    return module.rpartition(".")[2]


def _code(one: Callable[..., Any]) -> str:
    text = inspect.cleandoc(one.__doc__ or "")
    return f"```text\n{facts.signature(one)}\n\n{text}\n```\n"


def _forward(cls: type[Method]) -> str:
    text = inspect.cleandoc(cls.forward.__doc__ or "").rstrip(".")
    return f"Terms in the journal: {_ticked(text)}.\n" if text else ""


def _ticked(text: str) -> str:
    return re.sub(r"(\{[^}]*\})", r"`\1`", " ".join(text.split()), count=1)


def _tensors(cls: type[Method]) -> str:
    fields = [f"`{one}` ({MEANING[one]})" for one in MEANING if one in cls.needs]
    config = facts.config(cls, facts.presets(cls)[0])
    fields += ["the labels"] if costs.reads_labels(cls, config) else []
    maps = ", ".join(_kept(cls.name, config.preset).maps)
    return f"Reads {', '.join(fields)}.\n\nMaps of the student that get a gradient, for the stated pair: {maps}.\n"


def _parameters(cls: type[Method], presets: tuple[str, ...]) -> str:
    heads = ("default",) if len(presets) == 1 else tuple(f"`{one}`" for one in presets)
    rows = [
        (f"`{one.name}`", one.values, *(one.defaults[preset] or "refused" for preset in presets), one.description)
        for one in facts.parameters(cls)
    ]
    return _table(("key", "values", *heads, "meaning"), rows)


def _cost(cls: type[Method], presets: tuple[str, ...]) -> str:
    said = [_cost_of(cls, preset) for preset in presets]
    same = len(set(said)) == 1
    titled = said[:1] if same else [f"Preset `{name}`.\n\n{text}" for name, text in zip(presets, said, strict=True)]
    return "\n".join([*titled, f"Work: {facts.cost(cls)}\n"])


def _cost_of(cls: type[Method], preset: str) -> str:
    config = facts.config(cls, preset)
    rows = [
        (f"`{one.name}`", one.kind, one.trained_by, _count(one.parameters), _count(one.trained), _count(one.buffers))
        for one in costs.modules(cls, config)
    ]
    heads = ("module", "kind", "trained by", "parameters", "of these trained", "numbers in buffers")
    lines = [_table(heads, rows) if rows else "No modules of its own.\n"]
    if before := costs.pretraining(cls, config):
        module, parameters = before
        how = f"{_count(parameters)} parameters, {module.epochs:g} epochs, SGD, lr {module.lr:g}"
        lines.append(f"Pretraining on the teacher ({how}): {_prose(type(module).__doc__ or '')}\n")
    if cls.teacher_variant(config) != "none":
        lines.append(f"Teacher: trained with `attention: {cls.teacher_variant(config)}`.\n")
    lines.append(f"Kept for backward: {_kept(cls.name, preset).ratio:.1f} times the student's maps.\n")
    return "\n".join(lines)


def _shared(module: str) -> str:
    name, text = _last(module), sys.modules[module].__doc__ or ""
    members = [one for one in vars(sys.modules[module]).values() if facts.is_definition(one, (module,))]
    return "\n".join([f"\n## {name}\n", _linked(_prose(text)) + "\n", *map(_code, members)])


def _link(paper: facts.Source) -> str:
    return f"[{paper.title}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else paper.title


def _prose(text: str) -> str:
    """Docstring as Markdown: paragraphs and formulas as they stand, none of their signs taken for markup."""
    plain = "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))
    outside = re.split(r"(`[^`]*`)", plain)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<>|])", r"\\\1", part) for part in outside)


def _linked(text: str) -> str:
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _count(number: int) -> str:
    return f"{number:,}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)

    def lines() -> Iterator[str]:
        yield _row(heads)
        yield _row("---" for _ in heads)
        yield from (_row(cell.replace("|", r"\|") for cell in row) for row in rows)

    return "\n".join(lines()) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
