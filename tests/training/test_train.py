"""Whole runs on a tiny project: exact resume, what run.json says, and what stops a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segkd import steps
from segkd.config.load import load_params
from segkd.config.runs import Run, resolve
from segkd.errors import CheckpointError, ConfigError, DataError, DriftError, InterruptedRunError, NonFiniteError
from segkd.evaluation import quick
from segkd.files import read_json, sha256_file, write_json
from segkd.methods import registry
from segkd.methods.base import Method, MethodConfig, OwnOptimiser, Progress
from segkd.networks.outputs import Channels, Outputs
from segkd.tracking.journal import read
from segkd.training import loop

NewProject = Callable[..., Path]
TEACHER = Run("tiny", "large")
ALONE = Run("tiny", "small")
TAUGHT = Run("tiny", "small", "kd", "large")


def weights(root: Path, run: Run) -> str:
    return read_json(root / run.folder / "run.json")["weights"]["sha256"]


def stop_after(monkeypatch: pytest.MonkeyPatch, *iterations: int) -> None:
    """Make the loop believe that it was asked to stop after these updates, each once."""
    waiting, update = list(iterations), loop.update

    def counting(run: loop.Training, progress: Progress) -> None:
        update(run, progress)
        if waiting and progress.iteration + 1 == waiting[0]:
            waiting.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "update", counting)


@pytest.fixture
def project(new_project: NewProject) -> Path:
    return new_project()


class TestResume:
    @pytest.mark.parametrize("stops", [(1,), (4,), (1, 2, 3, 4, 5)])
    def test_same_weights_and_journal_as_an_undisturbed_run(
        self, new_project: NewProject, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
    ) -> None:
        calm, troubled = new_project("calm"), new_project("troubled")
        steps.student(ALONE, steps.Options(root=calm))
        stop_after(monkeypatch, *stops)
        for _ in stops:
            with pytest.raises(InterruptedRunError, match="goes on"):
                steps.student(ALONE, steps.Options(root=troubled))
        steps.student(ALONE, steps.Options(root=troubled))
        assert weights(calm, ALONE) == weights(troubled, ALONE)
        assert read_json(troubled / ALONE.folder / "run.json")["timing"]["resumes"] == len(stops)
        best = [read_json(root / ALONE.folder / "run.json")["best"] for root in (calm, troubled)]
        assert best[0] == best[1]
        assert journal(calm) == journal(troubled)

    @pytest.mark.fault("P2", "SIGTERM in the midst of a validation: saved at once, the validation made again")
    def test_asked_to_stop_in_mid_validation(self, new_project: NewProject, monkeypatch: pytest.MonkeyPatch) -> None:
        calm, troubled = new_project("calm"), new_project("troubled")
        steps.student(ALONE, steps.Options(root=calm))
        batches, confusion = [0], quick.confusion

        def counting(*args: Any) -> Any:
            batches[0] += 1
            if batches[0] in {1, 2, 5}:  # two attempts at the first validation, one at the last
                os.kill(os.getpid(), signal.SIGTERM)
            return confusion(*args)

        monkeypatch.setattr(quick, "confusion", counting)
        for iteration in (3, 3, 6):
            with pytest.raises(InterruptedRunError, match=f"stopped at iteration {iteration} of 6"):
                steps.student(ALONE, steps.Options(root=troubled))
        assert batches == [5], "left after the batch in which it was asked"
        steps.student(ALONE, steps.Options(root=troubled))
        runs = [read_json(root / ALONE.folder / "run.json") for root in (calm, troubled)]
        assert [run["weights"]["sha256"] for run in runs] == [weights(calm, ALONE)] * 2
        assert runs[0]["best"] == runs[1]["best"]
        assert journal(calm) == journal(troubled)

    def test_killed_in_mid_epoch_and_started_again(self, new_project: NewProject) -> None:
        calm, troubled = new_project("calm"), new_project("troubled")
        for root in (calm, troubled):
            steps.teacher(TEACHER, steps.Options(root=root))
        steps.student(TAUGHT, steps.Options(root=calm))
        code = (
            "import os, signal; from pathlib import Path\n"
            "from segkd import steps; from segkd.config.runs import Run; from segkd.training import loop\n"
            "import torch; torch.set_num_threads(1)\n"
            "update = loop.update\n"
            "def dying(run, progress):\n"
            "    if progress.iteration == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
            "    update(run, progress)\n"
            "loop.update = dying\n"
            f"steps.student(Run.parse({TAUGHT.name!r}), steps.Options(root=Path({str(troubled)!r}), save_seconds=0))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
        assert not (troubled / TAUGHT.folder / "run.json").exists()
        steps.student(TAUGHT, steps.Options(root=troubled))
        assert weights(calm, TAUGHT) == weights(troubled, TAUGHT)
        assert read_json(troubled / TAUGHT.folder / "run.json")["timing"]["resumes"] == 1

    def test_killed_between_weights_and_run_json(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from segkd.training import run as module

        def dying(path: Path, value: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "write_json", dying)
        with pytest.raises(KeyboardInterrupt):
            steps.student(ALONE, steps.Options(root=project))
        before = sha256_file(project / ALONE.folder / "weights.safetensors")
        monkeypatch.undo()
        monkeypatch.setattr(loop, "update", None)  # nothing is trained again
        steps.student(ALONE, steps.Options(root=project))
        assert weights(project, ALONE) == before

    def test_other_configuration_is_refused_unless_allowed_and_then_recorded(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stop_after(monkeypatch, 2)
        with pytest.raises(InterruptedRunError):
            steps.student(ALONE, steps.Options(root=project))
        text = (project / "params.yaml").read_text()
        (project / "params.yaml").write_text(text.replace("lr: 0.003", "lr: 0.002"))
        with pytest.raises(DriftError, match="configuration: "):
            steps.student(ALONE, steps.Options(root=project))
        steps.student(ALONE, steps.Options(root=project, allow_drift=True))
        (drift,) = read_json(project / ALONE.folder / "run.json")["drift"]
        assert drift.startswith("configuration: ")

    def test_fresh_forgets_the_attempt(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stop_after(monkeypatch, 2)
        with pytest.raises(InterruptedRunError):
            steps.student(ALONE, steps.Options(root=project))
        steps.student(ALONE, steps.Options(root=project, fresh=True))
        assert read_json(project / ALONE.folder / "run.json")["timing"]["resumes"] == 0


def journal(root: Path) -> list[tuple[str, int, Any]]:
    """What was measured; events and times of course differ."""
    lines = read(root / ALONE.folder / "metrics.jsonl")
    return [(line["kind"], line["iteration"], line["values"]) for line in lines if line["kind"] != "event"]


def test_sigterm_saves_and_leaves_with_its_own_exit_code(new_project: NewProject) -> None:
    project = new_project(change=lambda params: params["recipes"]["tiny"].update(iterations=100000))
    command = [sys.executable, "-m", "segkd.cli", "student", ALONE.name]
    process = subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True)
    state = project / ALONE.folder / "state" / "holder.txt"
    try:
        deadline = time.monotonic() + 60
        while not state.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the same command goes on" in errors
    assert list(state.parent.glob("state-*.safetensors"))
    assert not (project / ALONE.folder / "run.json").exists()


class TestResult:
    def test_run_json_names_everything(self, project: Path) -> None:
        steps.teacher(TEACHER, steps.Options(root=project))
        steps.student(TAUGHT, steps.Options(root=project))
        record = read_json(project / TAUGHT.folder / "run.json")
        assert record["config_sha256"] == resolve(load_params(project / "params.yaml"), TAUGHT).sha256()
        assert record["teacher"] == {"run": TEACHER.name, "weights_sha256": weights(project, TEACHER)}
        manifest = read_json(project / "data/prepared/digits/manifest.json")
        assert record["data"]["name"] == "digits"
        assert record["data"]["sha256"] in json.dumps(manifest) or len(record["data"]["sha256"]) == 64
        assert record["weights"]["sha256"] == sha256_file(project / TAUGHT.folder / "weights.safetensors")
        assert record["best"]["sha256"] == sha256_file(project / TAUGHT.folder / "best.safetensors")
        assert record["command"] == f"segkd student {TAUGHT.name}"
        assert record["versions"]["torch"] == torch.__version__
        assert record["hardware"]["threads"] == 1
        assert not (project / TAUGHT.folder / "state").exists()

    @pytest.mark.fault("P1", "a training that is done twice, and with another seed")
    def test_same_seed_same_bytes_other_seed_other_bytes(self, new_project: NewProject) -> None:
        first, second = new_project("first"), new_project("second")
        for root in (first, second):
            steps.student(ALONE, steps.Options(root=root))
        assert weights(first, ALONE) == weights(second, ALONE)
        other = Run("tiny", "small", seed=1)
        steps.student(other, steps.Options(root=first))
        assert weights(first, other) != weights(first, ALONE)

    @pytest.mark.fault("P6", "a whole training with other numbers of loader workers")
    def test_number_of_loader_workers_changes_nothing(self, new_project: NewProject) -> None:
        first, second = new_project("first"), new_project("second")
        steps.student(ALONE, steps.Options(root=first))
        steps.student(ALONE, steps.Options(root=second, workers=2))
        assert weights(first, ALONE) == weights(second, ALONE)

    @pytest.mark.fault("P7", "a whole training with a teacher")
    def test_teacher_is_not_touched_and_teaches(self, project: Path) -> None:
        steps.teacher(TEACHER, steps.Options(root=project))
        before = sha256_file(project / TEACHER.folder / "weights.safetensors")
        steps.student(TAUGHT, steps.Options(root=project))
        steps.student(ALONE, steps.Options(root=project))
        assert sha256_file(project / TEACHER.folder / "weights.safetensors") == before
        assert weights(project, TAUGHT) != weights(project, ALONE)

    def test_autoencoder_is_trained_on_the_teacher_before_the_student(self, project: Path) -> None:
        steps.teacher(TEACHER, steps.Options(root=project))
        student = Run("tiny", "small", "ka", "large")
        with pytest.raises(CheckpointError, match="segkd autoencoder tiny/small/ka@large/autoencoder"):
            steps.student(student, steps.Options(root=project))
        before = Run("tiny", "small", "ka", "large", None)
        steps.autoencoder(before, steps.Options(root=project))
        steps.student(student, steps.Options(root=project))
        record = read_json(project / student.folder / "run.json")
        assert record["pretraining"] == {"run": before.name, "weights_sha256": weights(project, before)}


class TestRefusals:
    def test_planned_under_another_configuration(self, project: Path) -> None:
        with pytest.raises(ConfigError, match="start snakemake again"):
            steps.student(ALONE, steps.Options(root=project, config_hash="0" * 64))

    def test_no_teacher_yet(self, project: Path) -> None:
        with pytest.raises(CheckpointError, match=f"segkd teacher {TEACHER.name}"):
            steps.student(TAUGHT, steps.Options(root=project))

    @pytest.mark.parametrize(
        ("key", "value", "error", "message"),
        [
            (("data", "sha256"), "0" * 64, DataError, "trained on other data"),
            (("config", "network", "width"), 0.5, CheckpointError, "another network"),
            (("config", "recipe", "input_scale"), 0.5, ConfigError, "other input"),
            (("weights", "sha256"), "0" * 64, CheckpointError, "sha256"),
        ],
    )
    def test_teacher_that_does_not_fit(
        self, project: Path, key: tuple[str, ...], value: object, error: type[Exception], message: str
    ) -> None:
        steps.teacher(TEACHER, steps.Options(root=project))
        path = project / TEACHER.folder / "run.json"
        record = read_json(path)
        place = record
        for part in key[:-1]:
            place = place[part]
        place[key[-1]] = value
        write_json(path, record)
        with pytest.raises(error, match=message):
            steps.student(TAUGHT, steps.Options(root=project))

    def test_non_finite_loss_stops_before_the_update_and_names_the_images(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        updates = []
        backward, update = loop.backward, loop.update

        def poisoned(run: loop.Training, batch: Any, progress: Progress) -> dict[str, Tensor]:
            terms = backward(run, batch, progress)
            return terms | {"task": terms["task"] * float("nan")} if progress.iteration == 2 else terms

        def counted(run: loop.Training, progress: Progress) -> None:
            updates.append(progress.iteration)
            update(run, progress)

        monkeypatch.setattr(loop, "backward", poisoned)
        monkeypatch.setattr(loop, "update", counted)
        with pytest.raises(NonFiniteError, match="before update 3: task not finite") as caught:
            steps.student(ALONE, steps.Options(root=project))
        assert updates == [0, 1]
        assert caught.value.exit_code == 3
        kept = read_json(project / ALONE.folder / "nonfinite.json")
        assert kept["iteration"] == 2
        assert len(kept["images"]) == 4

    def test_non_finite_gradient_stops_too(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        backward = loop.backward

        def poisoned(run: loop.Training, batch: Any, progress: Progress) -> dict[str, Tensor]:
            terms = backward(run, batch, progress)
            next(iter(run.optimisers["main"].param_groups[0]["params"])).grad.fill_(float("inf"))
            return terms

        monkeypatch.setattr(loop, "backward", poisoned)
        with pytest.raises(NonFiniteError, match="gradient norm not finite"):
            steps.student(ALONE, steps.Options(root=project))


class Adversary(Method):
    """A method with all that a method may have: own weights, an own optimiser, a bank, a time of standing still."""

    class Config(MethodConfig):
        pass

    factor = 10.0

    def __init__(self, config: MethodConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        self.connector = nn.Conv2d(student.embedding.channels, teacher.embedding.channels, 1)
        self.judge = nn.Conv2d(classes, 1, 1)
        self.register_buffer("bank", torch.zeros(3))

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        self.bank = self.bank + torch.rand(3, device=labels.device)  # from the random state, which a resume restores
        near = (self.connector(student.embedding.float()) - teacher.embedding).square().mean()
        return {"near": near * self.bank.mean(), "fool": -self.judge(student.logits.float()).mean()}

    def critic(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        return {"judge": (self.judge(student.logits.detach()) - self.judge(teacher.logits)).square().mean()}

    def own_optimisers(self) -> tuple[OwnOptimiser, ...]:
        return (OwnOptimiser("judge", tuple(self.judge.parameters())),)

    def student_moves(self, progress: Progress) -> bool:
        return progress.iteration > 0


@pytest.fixture
def adversary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Any]], None]]:
    from segkd.training import run as module

    registry.available()
    monkeypatch.setitem(registry._METHODS, "adversary", Adversary)
    monkeypatch.setattr(module, "code_fingerprint", lambda step, method: "test")
    yield lambda params: params["methods"].update(adversary={"method": "adversary"})


class TestMethodWithEverything:
    run = Run("tiny", "small", "adversary", "large")

    def test_resumes_exactly(
        self, new_project: NewProject, adversary: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calm, troubled = new_project("calm", adversary), new_project("troubled", adversary)
        for root in (calm, troubled):
            steps.teacher(TEACHER, steps.Options(root=root))
        steps.student(self.run, steps.Options(root=calm))
        stop_after(monkeypatch, 1, 3)
        for _ in range(2):
            with pytest.raises(InterruptedRunError):
                steps.student(self.run, steps.Options(root=troubled))
        steps.student(self.run, steps.Options(root=troubled))
        assert weights(calm, self.run) == weights(troubled, self.run)

    def test_student_stands_still_while_the_method_says_so(
        self, new_project: NewProject, adversary: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project = new_project("project", adversary)
        steps.teacher(TEACHER, steps.Options(root=project))
        moved: list[dict[str, bool]] = []
        update, update_own = loop.update, loop.update_own

        def copies(run: loop.Training) -> dict[str, Tensor]:
            return {name: p.detach().clone() for m in run.learner.modules.values() for name, p in m.named_parameters()}

        before: dict[str, Tensor] = {}

        def first(run: loop.Training, progress: Progress) -> None:
            before.update(copies(run))
            update(run, progress)

        def second(run: loop.Training, progress: Progress) -> dict[str, Tensor]:
            terms = update_own(run, progress)
            moved.append({name: not torch.equal(before[name], value) for name, value in copies(run).items()})
            return terms

        monkeypatch.setattr(loop, "update", first)
        monkeypatch.setattr(loop, "update_own", second)
        steps.student(self.run, steps.Options(root=project))
        own = {"connector.weight", "connector.bias", "judge.weight"}
        assert {name for name, yes in moved[0].items() if yes} == own
        assert all(moved[1][name] for name in moved[1] if name != "judge.bias")
