"""The profiles for clusters hold options that Snakemake and its plugins document; running them needs a cluster."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import get_argument_parser
from snakemake.resources import Resources

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ROOT / "workflow" / "profiles"
# what the plugins' own documentation names
PLUGIN_OPTIONS = {
    "gpu": set[str](),
    "slurm": {
        "slurm-init-seconds-before-status-checks",
        "slurm-requeue",
    },
    "kubernetes": {
        "kubernetes-namespace",
        "kubernetes-cpu-scalar",
        "kubernetes-service-account-name",
        "kubernetes-privileged",
        "kubernetes-persistent-volumes",
    },
}
SLURM_RESOURCES = (
    "slurm_partition slurm_account slurm_extra runtime mem_mb mem_mb_per_cpu gpu gpu_model gres constraint"
)
PLUGIN_RESOURCES = {
    "slurm": {*SLURM_RESOURCES.split(), "nodes", "tasks", "cpus_per_task"},
    "kubernetes": {"gpu", "gpu_manufacturer", "machine_type", "scale", "mem_mb", "disk_mb", "runtime"},
}
CLUSTERS = ("slurm", "kubernetes")


def profile(name: str) -> dict[str, Any]:
    return yaml.safe_load((PROFILES / name / "config.yaml").read_text())


def test_every_profile_is_tested() -> None:
    assert {path.name for path in PROFILES.iterdir()} == set(PLUGIN_OPTIONS)


@pytest.mark.parametrize("name", PLUGIN_OPTIONS)
def test_options_are_snakemakes_or_documented_by_the_plugin(name: str) -> None:
    parser = get_argument_parser()
    known = {word.lstrip("-") for action in parser._actions for word in action.option_strings if word.startswith("--")}
    assert set(profile(name)) <= known | PLUGIN_OPTIONS[name]


@pytest.mark.parametrize("name", PLUGIN_OPTIONS)
def test_snakemake_reads_the_values(name: str, tmp_path: Path) -> None:
    """All that does not need the plugin goes through Snakemake's own parser."""
    config = profile(name)
    assert config.pop("executor", "local") == {"gpu": "local"}.get(name, name)
    for key in (*PLUGIN_OPTIONS[name], "default-storage-provider"):
        config.pop(key, None)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    read = get_argument_parser([str(tmp_path)]).parse_args([])
    assert (read.keep_going, read.rerun_incomplete, read.show_failed_logs) == (True, True, True)
    assert "gpu" in list(read.resources)
    if name in CLUSTERS:
        assert read.jobs == config["jobs"]
        assert read.retries == 2


@pytest.mark.parametrize("name", CLUSTERS)
def test_resources_are_those_that_the_plugin_passes_on(name: str) -> None:
    wanted = profile(name)["default-resources"]
    assert set(wanted) <= PLUGIN_RESOURCES[name]
    assert wanted["gpu"] == 0  # jobs without a GPU say so; else they would plan the studies of a machine without GPUs
    words = [f"{key}={value}" for key, value in wanted.items()]
    assert set(Resources.parse(words, allow_expressions=True, defaults="full")) >= set(wanted)


@pytest.mark.parametrize("name", CLUSTERS)
def test_plugins_are_optional(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    plugin = f"snakemake-executor-plugin-{name}"
    assert any(need.startswith(plugin) for need in project["optional-dependencies"][name])
    assert not any("plugin" in need for need in project["dependencies"])


def test_the_page_names_every_profile() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    assert all(f"workflow/profiles/{name}" in page for name in PLUGIN_OPTIONS)
