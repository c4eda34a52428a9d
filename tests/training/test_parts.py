"""The parts of training that need no data: task loss, schedule, states, locks, stop requests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from segkd.config.recipe import Optimiser, Schedule
from segkd.errors import CheckpointError, ConfigError, DriftError, LockedError
from segkd.methods.base import OwnOptimiser, Progress
from segkd.training import optimise
from segkd.training import state as states
from segkd.training.device import choose
from segkd.training.learner import cross_entropy
from segkd.training.lock import only_writer
from segkd.training.signals import StopRequest


class TestCrossEntropy:
    def test_is_the_mean_over_labelled_pixels_at_label_size(self) -> None:
        logits, labels = torch.randn(2, 5, 4, 6), torch.randint(0, 5, (2, 13, 17))
        labels[0, :5] = 255
        big = F.interpolate(logits, (13, 17), mode="bilinear", align_corners=True)
        want = F.cross_entropy(big, labels, ignore_index=255)
        torch.testing.assert_close(cross_entropy(logits, labels), want)

    def test_all_ignored_gives_zero_and_zero_gradient(self) -> None:
        logits = torch.randn(1, 3, 2, 2, requires_grad=True)
        loss = cross_entropy(logits, torch.full((1, 4, 4), 255))
        loss.backward()
        assert loss.item() == 0
        assert logits.grad is not None
        assert logits.grad.abs().max() == 0

    def test_computes_in_float32_under_autocast(self) -> None:
        logits, labels = torch.randn(1, 3, 8, 8), torch.randint(0, 3, (1, 8, 8))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert cross_entropy(logits.bfloat16(), labels).dtype == torch.float32


class TestSchedule:
    def test_poly(self) -> None:
        shares = [optimise.poly(Schedule(power=0.9), i, 10) for i in range(10)]
        assert shares == [(1 - i / 10) ** 0.9 for i in range(10)]

    def test_warm_up_rises_linearly_to_the_poly_curve(self) -> None:
        schedule = Schedule(power=1.0, warmup=4, warmup_factor=0.2)
        shares = [optimise.poly(schedule, i, 100) for i in range(6)]
        assert shares == pytest.approx([0.2, 0.99 * 0.4, 0.98 * 0.6, 0.97 * 0.8, 0.96, 0.95])

    def test_groups_keep_their_factors(self) -> None:
        parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        config = Optimiser(name="sgd", lr=0.5)
        built = optimise.build(config, {"backbone": ([parameters[0]], 1.0), "head": ([parameters[1]], 10.0)})
        optimise.set_rate(built, 0.5, 0.1)
        assert [group["lr"] for group in built.param_groups] == pytest.approx([0.05, 0.5])

    def test_own_optimiser_without_poly_keeps_its_rate(self) -> None:
        own = OwnOptimiser("critic", (torch.nn.Parameter(torch.zeros(1)),), lr=4e-4, poly=False)
        built = optimise.build_own(own)
        optimise.set_rate(built, 4e-4, 0.1)
        assert built.param_groups[0]["lr"] == 4e-4

    def test_frozen_parameters_are_not_optimised(self) -> None:
        frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        built = optimise.build(
            Optimiser(name="adamw", lr=1.0), {"a": ([frozen, torch.nn.Parameter(torch.ones(1))], 1.0)}
        )
        assert len(built.param_groups[0]["params"]) == 1

    def test_progress(self) -> None:
        assert Progress(5, 10, 2, 4).fraction == 0.5


def state(iteration: int) -> states.State:
    return states.State({"x": torch.full((50,), float(iteration))}, {"iteration": iteration})


class TestState:
    def test_round_trip_and_two_generations(self, tmp_path: Path) -> None:
        for iteration in (1, 2, 3):
            states.save_state(tmp_path, state(iteration))
        loaded = states.load_state(tmp_path)
        assert loaded is not None
        assert loaded.iteration == 3
        assert torch.equal(loaded.tensors["x"], torch.full((50,), 3.0))
        assert len(list(tmp_path.iterdir())) == 2

    def test_none_where_there_is_none(self, tmp_path: Path) -> None:
        assert states.load_state(tmp_path / "nothing") is None

    @pytest.mark.parametrize("keep", [0, 1, 7, 8, 40, 100, 250, -1])
    def test_a_truncated_state_is_named_and_the_one_before_used(
        self, tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        states.save_state(tmp_path, state(1))
        newest = states.save_state(tmp_path, state(2))
        newest.write_bytes(newest.read_bytes()[:keep])
        loaded = states.load_state(tmp_path)
        assert loaded is not None
        assert loaded.iteration == 1
        assert newest.name in caplog.text

    def test_a_flipped_bit_is_noticed(self, tmp_path: Path) -> None:
        states.save_state(tmp_path, state(1))
        newest = states.save_state(tmp_path, state(2))
        content = bytearray(newest.read_bytes())
        content[-3] ^= 1
        newest.write_bytes(content)
        loaded = states.load_state(tmp_path)
        assert loaded is not None
        assert loaded.iteration == 1

    def test_never_silently_from_scratch(self, tmp_path: Path) -> None:
        path = states.save_state(tmp_path, state(1))
        path.write_bytes(b"")
        with pytest.raises(CheckpointError, match="--fresh"):
            states.load_state(tmp_path)

    def test_a_crash_while_writing_leaves_the_state_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        states.save_state(tmp_path, state(1))

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            states.save_state(tmp_path, state(2))
        monkeypatch.undo()
        loaded = states.load_state(tmp_path)
        assert loaded is not None
        assert loaded.iteration == 1
        assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]

    @pytest.mark.parametrize("name", ["sgd", "adamw"])
    def test_optimiser_continues_as_if_never_stopped(self, name: str) -> None:
        def trained(parts: tuple[int, ...]) -> torch.Tensor:
            torch.manual_seed(0)
            layer, saved = torch.nn.Linear(3, 2), {}
            inputs = torch.randn(6, 4, 3)
            done = 0
            for steps in parts:
                optimiser = optimise.build(
                    Optimiser(name=name, lr=0.1, weight_decay=0.01),  # type: ignore[arg-type]
                    {"all": (layer.parameters(), 1.0)},
                )
                if saved:
                    states.unpack_optimiser("o", optimiser, saved)
                for _ in range(steps):
                    optimiser.zero_grad()
                    layer(inputs[done]).square().sum().backward()
                    optimiser.step()
                    done += 1
                saved = {k: v.clone() for k, v in states.pack_optimiser("o", optimiser).items()}
            return layer.weight.detach()

        assert torch.equal(trained((6,)), trained((2, 3, 1)))

    def test_drift_is_refused_with_the_differences_or_recorded(self, tmp_path: Path) -> None:
        saved, now = {"data": "a", "torch": "1"}, {"data": "b", "torch": "1"}
        with pytest.raises(DriftError, match="data: a -> b"):
            states.check_drift(saved, now, where=tmp_path, allow=False)
        assert states.check_drift(saved, now, where=tmp_path, allow=True) == ["data: a -> b"]
        assert states.check_drift(saved, dict(saved), where=tmp_path, allow=False) == []


def test_second_writer_is_told_who_holds_the_run(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from segkd.training.lock import only_writer\n"
        "with only_writer(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {other.pid}"), only_writer(tmp_path):
            pass
    finally:
        other.kill()
        other.wait()
    with only_writer(tmp_path):  # the lock of a dead process is free
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_second_acts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as request:
        os.kill(os.getpid(), number)
        assert request.asked
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


class TestDevice:
    def test_wish_for_a_missing_gpu_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEGKD_DEVICE", "cuda")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ConfigError, match="sees none"):
            choose("auto", 1)

    def test_nonsense_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEGKD_DEVICE", "abacus")
        with pytest.raises(ConfigError, match="abacus"):
            choose("auto", 1)

    def test_cpu_computes_in_float32_with_the_recipes_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEGKD_DEVICE", "cpu")
        place = choose("auto", 2)
        assert torch.get_num_threads() == 2
        assert not place.bf16
