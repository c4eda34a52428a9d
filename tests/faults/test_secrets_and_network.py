"""Passwords stay out of everything that is written; without any network the steps end in the same bytes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from segkd import steps
from segkd.config.load import load_params
from segkd.config.runs import Run
from segkd.errors import ConfigError, explain, without_credentials
from segkd.files import read_json, sha256_file

NewProject = Callable[..., Path]
SECRETS = ("hush-4711", "word-4711", "token-4711", "login-4711")
URI = "http://somebody:hush-4711@word-4711@127.0.0.1:9"  # a password may hold an @; nobody listens on port 9
ALONE = Run("tiny", "small")
STUDY = {
    "title": "Small",
    "defaults": {"recipe": "tiny", "student": "small", "seeds": [0]},
    "tables": [{"name": "a", "title": "A", "cells": [{"method": "none"}]}],
}


def track_at(uri: str) -> Callable[[dict[str, Any]], None]:
    """Change of params.yaml: where runs are mirrored, at once."""
    return lambda params: params.update(tracking={"uri": uri, "live_after": 0.0})


def whole_way(root: Path) -> None:
    """From training to the page."""
    (root / "workflow/studies").mkdir(parents=True, exist_ok=True)
    (root / "workflow/studies/small.yaml").write_text(yaml.safe_dump(STUDY))
    steps.student(ALONE, steps.Options(root=root))
    steps.evaluate(ALONE, steps.Options(root=root))
    steps.track("small", root=root)
    steps.report("small", root=root)


def telling(root: Path) -> list[str]:
    """Files under a folder that hold a secret, without params.yaml, where the user wrote it."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != "params.yaml"]
    assert len(files) > 15
    return [str(path) for path in files if any(one.encode() in path.read_bytes() for one in SECRETS)]


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Credentials in the environment, and an MLflow client that gives up soon."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("CITYSCAPES_USERNAME", "somebody")
    monkeypatch.setenv("CITYSCAPES_PASSWORD", SECRETS[3])
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRETS[2])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield


@pytest.mark.fault(
    "P4", "passwords in the tracking address and the environment: run.json, journal, log, report, MLflow"
)
def test_no_password_is_written_from_training_to_the_page(
    new_project: NewProject, secrets: None, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("DEBUG", logger="segkd")
    root = new_project("closed", track_at(URI))
    whole_way(root)
    assert "127.0.0.1:9" in (root / "reports/small/tracking.json").read_text()  # it was tried, and says where
    assert telling(root) == []
    assert not any(one in caplog.text for one in SECRETS)


@pytest.mark.fault("P4", "passwords in the environment of runs that MLflow mirrors")
def test_no_password_is_mirrored(new_project: NewProject, secrets: None) -> None:
    root = new_project("open", track_at("sqlite:///mlflow.db"))
    whole_way(root)
    assert "mlflow_run_id" in read_json(root / "reports/small/tracking.json")[ALONE.name]
    assert telling(root) == []


@pytest.mark.fault("P4", "a fault in params.yaml beside a password: the message shows the value found")
@pytest.mark.parametrize(
    "wrong",
    [
        {"tracking": {"uri": URI, "urii": "x"}},
        {"tracking": {"uri": URI, "live_after": -1}},
        {"tracking": [URI]},
        {"datasets": URI},
        {"recipes": {"tiny": {"dataset": URI}}},
    ],
)
def test_messages_about_params_yaml_hold_no_password(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"tracking": {"uri": URI}} | wrong))
    with pytest.raises(ConfigError) as caught:
        load_params(path)
    assert not any(one in str(caught.value) for one in SECRETS)


@pytest.mark.fault("P4", "a command line that fails beside passwords")
def test_the_command_line_tells_no_password(new_project: NewProject, secrets: None) -> None:
    root = new_project("failing", track_at(URI))
    words = [sys.executable, "-m", "segkd.cli", "student", "tiny/small/kd@large/seed0"]
    done = subprocess.run(words, cwd=root, env=os.environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2 and "is needed first" in done.stderr
    assert not any(one in done.stdout + done.stderr for one in SECRETS)


@pytest.mark.fault("P4", "an address with user and password in any error")
def test_addresses_in_errors_lose_user_and_password() -> None:
    text = explain(URI, expected=URI, found=f"no answer from {URI}/api", where="s3://key:hush-4711@store/x", fix=URI)
    assert not any(one in text for one in SECRETS)
    assert "http://127.0.0.1:9/api" in text and "s3://store/x" in text
    for harmless in ("sqlite:///mlflow.db", "data/models/tiny/small/kd@large/seed0", "mail somebody@host", "a://b/c@d"):
        assert without_credentials(harmless) == harmless


@pytest.mark.fault(
    "P5", "no network at all, and a tracking server that is gone: the same weights and scores, and a page"
)
def test_without_any_network_the_results_are_the_same(
    new_project: NewProject, monkeypatch: pytest.MonkeyPatch, secrets: None
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("the network is unreachable")

    online, offline = new_project("online", track_at("sqlite:///mlflow.db")), new_project("offline", track_at(URI))
    whole_way(online)
    with monkeypatch.context() as patch:
        for name in ("connect", "connect_ex", "bind"):
            patch.setattr(socket.socket, name, no_network)
        patch.setattr(socket, "getaddrinfo", no_network)
        whole_way(offline)
    assert "error" in read_json(offline / "reports/small/tracking.json")[ALONE.name]
    for name in ("weights.safetensors", "per_image.npz"):
        assert sha256_file(online / ALONE.folder / name) == sha256_file(offline / ALONE.folder / name)
    for key in ("scores", "confusion", "per_class"):
        assert scored(online)[key] == scored(offline)[key]
    assert (offline / "reports/small/index.html").stat().st_size > 1000


def scored(root: Path) -> dict[str, Any]:
    return dict(read_json(root / ALONE.folder / "evaluation.json"))
