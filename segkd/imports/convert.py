"""From a checkpoint as it lies there to a network of ours that has run once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from segkd.config.network import NetworkConfig
from segkd.errors import CheckpointError, explain
from segkd.imports.layout import tables, without_place
from segkd.imports.layouts import layout_of
from segkd.imports.match import Match, match
from segkd.imports.read import Foreign
from segkd.imports.rules import UserRules
from segkd.networks.build import Network, build
from segkd.networks.weights import load_into

TRIAL = (1, 3, 65, 97)  # the image of the trial run: odd sizes, as whole images have


@dataclass(frozen=True)
class Converted:
    """A network that holds a checkpoint's weights, and how each key came to its place."""

    network: Network
    match: Match


def convert(foreign: Foreign, name: str, config: NetworkConfig, classes: int, own: UserRules) -> Converted:
    """Build the network of `config` and fill it from a checkpoint of layout `name`; `own`: a user's further rules.

    ConfigError where the layout cannot become such a network. CheckpointError, with every key that is not accounted
    for on either side, or where the network's logits on a random image are not finite.
    """
    layout = layout_of(name)
    variants = tables(layout, name, config)
    network = build(config, classes)
    state = network.state_dict()
    passes = {variant: [own.table, layout.aliases, rules] for variant, rules in variants.items()}
    try:
        matched = match(foreign.tensors, state, passes, {**own.left_out, **without_place(layout, config)}, layout.hints)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}\n"
            f"  where:    {foreign.path}, layout {name}, {config.head} on {config.backbone}, {classes} classes\n"
            "  to do:    name the network and recipe that the file belongs to, or add rules: --rules FILE.yaml with\n"
            "            rules: [{pattern: 'front\\.of\\.their\\.key', to: front.of.ours}] and "
            "left_out: {'front\\.of\\.a\\.key': why}"
        ) from None
    load_into(network, matched.tensors(foreign.tensors, state), where=foreign.path)
    try_out(network, foreign)
    return Converted(network, matched)


def try_out(network: Network, foreign: Foreign) -> None:
    """Run the network once on a random image; CheckpointError where a logit is not finite."""
    image = torch.randn(TRIAL, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network.eval()(image).logits
    if not logits.isfinite().all():
        bad = [key for key, tensor in network.state_dict().items() if not tensor.isfinite().all()]
        raise CheckpointError(
            explain(
                "The imported network does not compute finite logits; nothing was written.",
                expected="finite logits on a random image",
                found=f"NaN or infinity; not finite in the file: {', '.join(bad) or 'nothing'}",
                where=foreign.path,
                fix="fetch the file again; if it is as published, it holds a diverged network",
            )
        )
