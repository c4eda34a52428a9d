"""params.yaml and studies: closed, typed, and clear about what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tiny_project import TINY

from segkd.config.load import load_params, load_study, read_yaml
from segkd.config.params import Params
from segkd.errors import ConfigError


def write(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump(TINY | changes))
    return path


def test_the_projects_own_params_and_studies_are_valid() -> None:
    params = load_params()
    for path in Path("workflow/studies").glob("*.yaml"):
        load_study(path.stem)
    assert {"none", "kd"} <= set(params.methods)


@pytest.mark.fault("P3", "params.yaml with a misspelt key")
def test_unknown_key_names_the_closest_known_one(tmp_path: Path) -> None:
    recipe = TINY["recipes"]["tiny"]
    path = write(tmp_path / "p.yaml", recipes={"tiny": recipe | {"iteratons": 5}})
    with pytest.raises(ConfigError, match=r"recipes\.tiny\.iteratons: unknown key; did you mean 'iterations'"):
        load_params(path)


@pytest.mark.fault("P3", "params.yaml with several faults")
def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    recipe = TINY["recipes"]["tiny"] | {"batch": 0, "input_scale": 2}
    with pytest.raises(ConfigError) as caught:
        load_params(write(tmp_path / "p.yaml", recipes={"tiny": recipe}))
    assert "2 faults" in str(caught.value)
    assert "batch" in str(caught.value)
    assert "input_scale" in str(caught.value)


@pytest.mark.fault("P4", "YAML with tags, anchors, duplicate keys or broken syntax")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "key 'a' stands twice"),
        ("a: &x 1\nb: *x\n", "anchors and aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", "tags are not allowed"),
        ("a: [1, 2\n", "cannot be read"),
    ],
)
def test_unsafe_or_ambiguous_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)


@pytest.mark.fault("P3", "params.yaml with a value that is not a number")
def test_not_a_number_is_refused(tmp_path: Path) -> None:
    recipe = TINY["recipes"]["tiny"] | {"optimiser": {"name": "sgd", "lr": float("nan")}}
    with pytest.raises(ConfigError, match=r"optimiser\.lr"):
        load_params(write(tmp_path / "p.yaml", recipes={"tiny": recipe}))


def test_exactly_one_of_iterations_and_epochs(tmp_path: Path) -> None:
    recipe = TINY["recipes"]["tiny"] | {"epochs": 3}
    with pytest.raises(ConfigError, match="exactly one of iterations and epochs"):
        load_params(write(tmp_path / "p.yaml", recipes={"tiny": recipe}))


@pytest.mark.fault("P3", "a recipe of a data set that is not there")
def test_recipe_of_a_missing_data_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no data set 'digits'"):
        load_params(write(tmp_path / "p.yaml", datasets={"other": {"kind": "camvid"}}))


@pytest.mark.fault("P3", "a misspelt study")
def test_missing_study_names_the_closest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        load_study("quickstrat")


def test_method_options_are_free_at_this_level_and_kept() -> None:
    params = Params.model_validate(TINY | {"methods": {"x": {"method": "kd", "temperature": 2}}})
    assert params.methods["x"].options == {"temperature": 2}


@pytest.mark.fault("P3", "a misspelt hyper-parameter of a method")
def test_method_options_are_checked_by_the_method() -> None:
    from segkd.methods.registry import method_config

    with pytest.raises(ConfigError, match=r"unknown key; did you mean 'temperature'"):
        method_config("kd", {"temprature": 2})


@pytest.mark.fault("P3", "a misspelt method")
def test_unknown_method_names_the_closest() -> None:
    from segkd.methods.registry import method_class

    with pytest.raises(ConfigError, match="did you mean 'kd'"):
        method_class("kdd")
