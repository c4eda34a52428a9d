"""Renaming rules, and the promise that every key on both sides is accounted for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from segkd.errors import CheckpointError, ConfigError
from segkd.imports.match import match, suggestions
from segkd.imports.rules import Rule, load_rules, pair, reason, rename

RULES = (Rule(r"body\.(\d)", r"backbone.\1"), Rule("body", "wrong"), *pair("top", "head", "conv", "bn"))
OWN = {
    **{f"backbone.{k}.{leaf}": torch.zeros(k + 1) for k in range(4) for leaf in ("weight", "bias")},
    "head.0.weight": torch.zeros(4, 2),
    "head.1.running_mean": torch.zeros(4),
    "head.1.num_batches_tracked": torch.tensor(0),
}
THEIRS = {
    key.replace("backbone.", "body.").replace("head.0", "top.conv").replace("head.1", "top.bn"): tensor
    for key, tensor in OWN.items()
}


def test_a_rule_renames_the_front_up_to_a_dot() -> None:
    assert rename("body.3.weight", RULES) == ("backbone.3.weight", RULES[0])
    assert rename("body.33.weight", RULES) == ("wrong.33.weight", RULES[1])
    assert rename("body", RULES) == ("wrong", RULES[1])
    assert rename("bodywork.weight", RULES) == ("bodywork.weight", None)
    assert rename("a.body.3", RULES) == ("a.body.3", None)
    assert rename("top.bn.bias", RULES)[0] == "head.1.bias"
    assert reason("ema.x", {"em": "no", "ema": "yes"}) == "yes"
    assert reason("emap.x", {"ema": "yes"}) is None


@pytest.mark.fault("P3", "a checkpoint with missing and extra keys (hypothesis)")
@given(
    missing=st.sets(st.sampled_from(sorted(THEIRS))),
    extra=st.sets(st.sampled_from(["x.weight", "y.z.bias", "q"])),
    seed=st.integers(),
)
def test_every_missing_and_every_extra_key_is_told(missing: set[str], extra: set[str], seed: int) -> None:
    found = {key: tensor for key, tensor in THEIRS.items() if key not in missing}
    found |= {key: torch.zeros(3) for key in extra}
    order = sorted(found)
    random.Random(seed).shuffle(order)
    found = {key: found[key] for key in order}
    counter = "top.bn.num_batches_tracked"
    filled_in = counter in missing and "top.bn.running_mean" not in missing
    gone = missing - ({counter} if filled_in else set())
    if not gone and not extra:
        done = match(found, OWN, {"only": [RULES]}, {}, {})
        assert sorted(done.filled) == sorted(set(OWN) - set(done.counted))
        assert {rename(name, RULES)[0] for name in found} == set(done.filled)
        assert done.counted == (["head.1.num_batches_tracked"] if filled_in else [])
        return
    with pytest.raises(CheckpointError) as caught:
        match(found, OWN, {"only": [RULES]}, {}, {})
    lines = [line.removeprefix("  - ") for line in str(caught.value).splitlines() if line.startswith("  - ")]
    both = [line.split()[:3:2] for line in lines if " ~ " in line]
    theirs = [line.split()[0] for line in lines if line.endswith(": no rule")]
    ours = [line.split()[0] for line in lines if ": no rule" not in line] + [key for _, key in both]
    assert sorted(theirs) == sorted(extra)
    assert sorted(ours) == sorted(rename(name, RULES)[0] for name in gone)


@pytest.mark.fault("P3", "a checkpoint that can be read in two ways")
def test_two_readings_that_both_fit_are_not_guessed_between() -> None:
    own = {"a.weight": torch.zeros(2), "b.weight": torch.zeros(2)}
    found = {"x.weight": torch.zeros(2), "y.weight": torch.ones(2)}
    straight, crossed = [(Rule("x", "a"), Rule("y", "b"))], [(Rule("x", "b"), Rule("y", "a"))]
    with pytest.raises(CheckpointError, match=r"several ways \(straight, crossed\)"):
        match(found, own, {"straight": straight, "crossed": crossed}, {}, {})
    assert match(found, own, {"straight": straight, "again": straight}, {}, {}).filled["a.weight"] == "x.weight"


def test_a_key_needs_a_rule_even_where_its_name_would_fit() -> None:
    with pytest.raises(CheckpointError, match=r"a\.weight \(2,\): no rule"):
        match({"a.weight": torch.zeros(2)}, {"a.weight": torch.zeros(2)}, {"only": [()]}, {}, {})


def test_a_linear_layer_becomes_a_1x1_convolution_and_nothing_else() -> None:
    rules = {"only": [(Rule("a", "a"),)]}
    found = {"a.weight": torch.arange(6.0).view(3, 2)}
    own = {"a.weight": torch.zeros(3, 2, 1, 1)}
    assert torch.equal(match(found, own, rules, {}, {}).tensors(found, own)["a.weight"][:, :, 0, 0], found["a.weight"])
    for shape in ((2, 3, 1, 1), (3, 2, 1), (6,), (3, 2, 3, 3)):
        with pytest.raises(CheckpointError, match="of another shape"):
            match(found, {"a.weight": torch.zeros(shape)}, rules, {}, {})


def test_suggestions_follow_shape_last_word_and_order() -> None:
    found = {
        "u.weight": torch.zeros(2),
        "u.bias": torch.zeros(2),
        "v.weight": torch.zeros(3),
        "w.weight": torch.zeros(2),
    }
    own = {"a.weight": torch.zeros(2), "a.bias": torch.zeros(2), "b.weight": torch.zeros(5), "c.weight": torch.zeros(2)}
    pairs = [("u.weight", "a.weight"), ("u.bias", "a.bias"), ("w.weight", "c.weight")]
    assert suggestions(list(found), list(own), found, own) == pairs


@pytest.mark.fault("P3", "a wrong file of renaming rules")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"rules": [{"pattern": "a(", "to": "b"}]}, "no regular expression"),
        ({"rules": [{"pattern": "a", "to": r"b\1"}]}, "uses group 1, the pattern has 0"),
        ({"rules": [{"pattern": "a", "too": "b"}]}, "did you mean 'to'"),
        ({"left_out": {"a[": "why"}}, "no regular expression"),
        ({"left_out": ["a"]}, "left_out"),
    ],
)
def test_faults_of_a_rules_file(tmp_path: Path, content: object, said: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=said.replace("'", ".")):
        load_rules(path)


def test_a_rules_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("rules:\n  - {pattern: 'a\\.(\\d)', to: 'b.\\1'}\nleft_out: {ema: averages}\n")
    rules = load_rules(path)
    assert rules.table == (Rule(r"a\.(\d)", r"b.\1"),)
    assert rules.left_out == {"ema": "averages"}
    assert load_rules(None).table == ()
