"""What a layout says: which names a code base gives to the parts of its networks, and what it computes otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from segkd.config.network import NetworkConfig
from segkd.config.recipe import Normalise, Recipe
from segkd.errors import ConfigError, explain
from segkd.imports.rules import LeftOut, Rule, Rules

Variants = Mapping[str, Rules]  # ways in which the same code base may have named one backbone

# parts that act while training only, or in no forward pass of the code base: named by a prefix of OUR keys
OPTIONAL = {
    "auxiliary": "the network has no auxiliary head, which acts in training only",
    "attention": "the network has no attention modules; the code base's own forward pass does not use them",
    "head.attention": "the network has no attention modules; the code base's own forward pass does not use them",
}


@dataclass(frozen=True)
class Layout:
    """Names of one code base, as rules that lead to ours, and the differences that names cannot show.

    backbones: rules by family (resnet, mobilenetv2, mit), in variants that are tried in turn: the one that accounts
    for every key is taken; heads: rules by our head's name; parts: rules for auxiliary head and attention;
    aliases: second names of the same tensors, brought to their first; hints: keys of networks that ours cannot stand
    for, and why. normalise: the input that the code base feeds its networks.

    Keyed by "" (always), a head, a family, a backbone or an attention: left_out: keys without a place, and why;
    expects: settings of its networks that the file does not show; differs: what it computes otherwise than our network;
    refused: networks of ours that cannot stand for its own, and why.
    """

    backbones: Mapping[str, Variants]
    heads: Mapping[str, Rules]
    parts: Rules = ()
    aliases: Rules = ()
    hints: LeftOut = field(default_factory=dict)
    normalise: Normalise = field(default_factory=Normalise)
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)
    expects: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def family(config: NetworkConfig) -> str:
    """resnet, mobilenetv2, mit, xception41: backbones whose keys are named alike."""
    return (
        config.backbone.rstrip("0123456789") if config.backbone.startswith("resnet") else config.backbone.split("-")[0]
    )


def topics(config: NetworkConfig) -> tuple[str, ...]:
    """What a layout may say of a network by: each once."""
    return tuple(dict.fromkeys(("", config.head, family(config), config.backbone, config.attention)))


def without_place(layout: Layout, config: NetworkConfig) -> LeftOut:
    """Keys of the code base that have no place in this network, by pattern, and why."""
    found: LeftOut = {}
    for topic in topics(config):
        found |= layout.left_out.get(topic, {})
    return found


def tables(layout: Layout, name: str, config: NetworkConfig) -> dict[str, Rules]:
    """Each variant's rules for this network; ConfigError where the layout has none for its head or backbone."""
    why = [layout.refused[topic] for topic in topics(config) if topic in layout.refused]
    known = layout.backbones.get(family(config))
    if known is None and not why:
        why = [f"layout {name!r} knows the backbones {', '.join(layout.backbones)}"]
    if config.head not in layout.heads and not why:
        why = [f"layout {name!r} knows the heads {', '.join(layout.heads)}"]
    if why or known is None:
        raise ConfigError(
            explain(
                f"Checkpoints of {name} cannot become this network.",
                expected="a network that computes what the released one does",
                found=f"{config.head} on {config.backbone}: {'; '.join(why)}",
                where=f"layout {name}",
                fix="name the network that the checkpoint holds, or another layout",
            )
        )
    return {variant: (*layout.heads[config.head], *layout.parts, *rules) for variant, rules in known.items()}


def differences(layout: Layout, config: NetworkConfig, recipe: Recipe) -> list[str]:
    """In what the published network differs from the one that will be scored, as far as the layout knows."""
    found = [layout.differs[topic] for topic in topics(config) if topic in layout.differs]
    for topic in topics(config):
        for setting, wanted in layout.expects.get(topic, {}).items():
            if (value := getattr(config, setting)) != wanted:
                found.append(f"{setting}: the code base's networks have {wanted}, this one has {value}")
    given = recipe.augmentation.normalise
    if given != layout.normalise:
        found.append(f"input: the code base normalises by {layout.normalise!r}, the recipe by {given!r}")
    return found


def under(prefix: str, rules: Rules) -> Rules:
    """The rules for keys below `prefix`, a pattern without groups."""
    return tuple(Rule(rf"{prefix}\.{rule.pattern}", rule.to) for rule in rules)
