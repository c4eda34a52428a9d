"""params.yaml, studies and descriptions that cannot be meant: one error that names the file, never a traceback."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_project import TINY

from segkd.config.load import load_params, load_study
from segkd.config.plain_yaml import read_yaml
from segkd.config.runs import Run, resolve
from segkd.errors import ConfigError

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

UNREADABLE = {
    "a tag that runs code": (b"a: !!python/object/apply:os.system ['true']\n", "tags are not allowed"),
    "a tag of plain YAML": (b"a: !!binary eA==\n", "tags are not allowed"),
    "a bomb of aliases": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchors and aliases"),
    "a merge key": (b"a: {<<: {b: 1}}\n", "merge"),
    "a key twice": (b"a: {b: 1, b: 2}\n", r"key 'b' stands twice \(line 1\)"),
    "a key twice in other words": (b"1: a\n0x1: b\n", "key 1 stands twice"),
    "a list as key": (b"? [a, b]\n: 1\n", "a key must be text or a number"),
    "a mapping as key": (b"? {a: b}\n: 1\n", "a key must be text or a number"),
    "nested without end": (b"[" * 20_000, "nested too deeply"),
    "a number of 5000 digits": (b"a: " + b"9" * 5000, "more than 64 bits"),
    "a hexadecimal number of 5000 digits": (b"a: 0x" + b"f" * 5000, "more than 64 bits"),
    "half a character": (b'a: "\\ud800"\n', "half a character"),
    "Latin-1": ("a: grün\n".encode("latin-1"), "utf-8"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "utf-8"),
    "a zero byte": (b"a: \0\n", "special characters are not allowed"),
    "two documents": (b"a: 1\n---\nb: 2\n", "single document"),
    "a tab": (b"a:\n\tb: 1\n", "cannot start any token"),
    "cut off": (b"a: [1, 2\n", "line 2"),
}


@pytest.mark.fault("P4", "YAML: tags, aliases, merges, keys twice, lists as keys, endless nesting and digits, no UTF-8")
@pytest.mark.parametrize("case", UNREADABLE)
def test_yaml_that_says_more_than_plain_values_is_refused(tmp_path: Path, case: str) -> None:
    content, message = UNREADABLE[case]
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value) and "cannot be read" in str(caught.value)


@pytest.mark.fault("P3", "a folder where a configuration file should be")
def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


@pytest.mark.fault("P3", "params.yaml that is empty, a list, or a word")
@pytest.mark.parametrize("text", ["", "# only words\n", "- a\n", "hello\n", "null\n"])
def test_what_is_no_mapping_is_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"1 fault\)[\s\S]*\(top\): Input should be a valid dictionary"):
        load_params(path)
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"\(top\): Input should be"):
        load_study("s", tmp_path)


def test_dates_and_marks_of_byte_order_are_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 2020-13-45\nb: 2020-01-02\n")
    assert read_yaml(path) == {"a": "2020-13-45", "b": "2020-01-02"}


def written(path: Path, place: tuple[str, ...], value: object) -> Path:
    """TINY with one value changed or added."""
    params = copy.deepcopy(TINY)
    node: Any = params
    for part in place[:-1]:
        node = node[part]
    node[place[-1]] = value
    path.write_text(yaml.safe_dump(params))
    return path


RECIPE = ("recipes", "tiny")


@pytest.mark.fault("P3", "params.yaml: wrong types, signs, ranges, infinities, misspelt keys at every depth")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((*RECIPE, "batch"), "four", r"recipes\.tiny\.batch: Input should be a valid integer.*'four'"),
        ((*RECIPE, "batch"), 2.5, r"recipes\.tiny\.batch: .*fractional part; found 2\.5"),
        ((*RECIPE, "batch"), -4, r"recipes\.tiny\.batch: .*greater than 0; found -4"),
        ((*RECIPE, "batch"), None, r"recipes\.tiny\.batch: "),
        ((*RECIPE, "batch"), [4], r"recipes\.tiny\.batch: "),
        ((*RECIPE, "optimiser", "lr"), float("inf"), r"recipes\.tiny\.optimiser\.lr: .*finite"),
        ((*RECIPE, "optimiser", "weight_decay"), float("nan"), r"optimiser\.weight_decay: "),
        ((*RECIPE, "optimiser", "mommentum"), 0.9, r"optimiser\.mommentum: unknown key; did you mean 'momentum'\?"),
        ((*RECIPE, "augmentation", "crop"), [32], r"augmentation\.crop"),
        ((*RECIPE, "augmentation", "crop"), [0, 32], r"augmentation\.crop.*0"),
        ((*RECIPE, "augmentation", "crop"), [32, -1], r"augmentation\.crop.*1"),
        ((*RECIPE, "evaluation", "spilt"), "val", r"evaluation\.spilt: unknown key; did you mean 'split'\?"),
        (("networks", "small", "widht"), 1, r"networks\.small\.widht: unknown key; did you mean 'width'\?"),
        (("networks", "small", "width"), 0, r"networks\.small\.width: .*greater than 0"),
        (("datasets", "digits", "kind"), "digit", r"datasets\.digits: .*'digits'"),
        (("datasets", "digits", "scenes"), {"train": 0}, r"datasets\.digits.*scenes"),
        (("datasets", "digits", "scenes"), {"train": -3, "val": 2}, r"datasets\.digits.*scenes"),
        (("datasets", "../out"), {"kind": "digits"}, r"datasets\.\.\./out.*pattern"),
        (("methods", "kd", "temperature"), float("nan"), r"methods\.kd: temperature: expected finite numbers"),
        (("trackin",), {}, r"trackin: unknown key; did you mean 'tracking'\?"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(
    tmp_path: Path, place: tuple[str, ...], value: object, message: str
) -> None:
    path = written(tmp_path / "params.yaml", place, value)
    with pytest.raises(ConfigError, match=message) as caught:
        load_params(path)
    assert str(path) in str(caught.value)


@pytest.mark.fault("P3", "any text as params.yaml (hypothesis)")
@QUIET
@given(st.text(st.sampled_from("ab:- \n[]{}&*!|>'\"#%,?1.\\\t\0é\ud83d"), max_size=40) | st.text(max_size=40))
def test_any_text_is_read_or_refused_by_our_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        content = read_yaml(path)
    except ConfigError as error:
        assert str(path) in str(error)
    else:
        assert content is None or isinstance(content, bool | int | float | str | list | dict)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
VALUES = st.recursive(LEAVES, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=4), part))
PLACES = [
    ("datasets", "digits"),
    ("networks", "small"),
    (*RECIPE, "optimiser"),
    (*RECIPE, "augmentation", "crop"),
    (*RECIPE, "evaluation"),
    (*RECIPE, "iterations"),
    ("methods", "kd", "temperature"),
    ("methods", "kd"),
    ("tracking",),
    ("studies",),
]


@pytest.mark.fault("P3", "any value anywhere in params.yaml (hypothesis)")
@settings(QUIET, max_examples=40)
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_any_value_is_taken_and_hashed_or_refused_by_our_error(
    tmp_path: Path, place: tuple[str, ...], value: object
) -> None:
    path = written(tmp_path / "params.yaml", place, value)
    try:
        params = load_params(path)
        found = resolve(params, Run("tiny", "small", "kd", "large", 0)).sha256()
    except ConfigError as error:
        assert str(error)
    else:
        assert len(found) == 64
