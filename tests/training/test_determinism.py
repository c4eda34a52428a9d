"""`determinism: strict`: nothing that a GPU adds up in an order of its own: no network, method, loss or whole run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from nondeterministic import GUARDS, RAISES, Watch, documented

from segkd import steps
from segkd.config.network import NetworkConfig
from segkd.config.runs import Run
from segkd.evaluation.cost import flops
from segkd.evaluation.step import evaluate
from segkd.files import read_json
from segkd.methods.base import Pretraining
from segkd.methods.registry import available, method_class, method_config
from segkd.networks.build import build
from segkd.testing.cases import SITUATIONS
from segkd.testing.check import configs
from segkd.testing.subject import Subject, critic_step, fitting, step
from segkd.training import determinism
from segkd.training.device import choose
from segkd.training.learner import cross_entropy

TEACHER, TAUGHT = Run("tiny", "large"), Run("tiny", "small", "kd", "large")
HEADS, BACKBONES = (get_args(NetworkConfig.model_fields[name].annotation) for name in ("head", "backbone"))
# settings that take another way through the kernels than presets do, with a student that is coarser than its teacher
OTHERWISE: dict[str, list[dict[str, Any]]] = {
    "fitnet": [{"resize": "teacher"}],
    "kd": [{"resize": "teacher"}, {"resize": "image"}],
}


@pytest.fixture(autouse=True)
def afterwards_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A mode holds for a process; other tests run in this one."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    determinism.enforce("fast")
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.fixture
def strict() -> None:
    """Strict, and memory that is read before it is written holds NaN."""
    determinism.enforce("strict")
    torch.utils.deterministic.fill_uninitialized_memory = True


def train_once(config: NetworkConfig) -> Watch:
    """Forward and backward of a network with the cross-entropy of its logits and of its auxiliary logits."""
    torch.manual_seed(0)
    network = build(config, 5).train()
    labels = torch.randint(0, 5, (2, 64, 72)).masked_fill(torch.rand(2, 64, 72) < 0.1, 255)
    with Watch() as watch:
        outputs = network(torch.randn(2, 3, 64, 72))
        loss = cross_entropy(outputs.logits, labels)
        if outputs.auxiliary is not None:
            loss = loss + cross_entropy(outputs.auxiliary, labels)
        loss.backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())
    return watch


def small(head: str = "deeplabv3plus", backbone: str = "resnet18", **more: Any) -> NetworkConfig:
    given = {"width": 0.05} | ({"output_stride": 32} if backbone.startswith("mit") else {})
    return NetworkConfig(**({"head": head, "backbone": backbone, "head_channels": 16} | given | more))


def pretrain_once(subject: Subject) -> None:
    """Forward and backward of what the method trains before any student."""
    module: Pretraining | None = method_class(subject.name).pretraining(subject.config, *subject.channels, 5)
    if module is not None:
        torch.stack(list(module(subject.case().teacher).values())).sum().backward()


@pytest.mark.usefixtures("strict")
class TestNothingThatRaisesOnCuda:
    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize("attention", ["none", "cbam"])
    def test_no_head(self, head: str, attention: str) -> None:
        auxiliary = head in {"pspnet", "deeplabv3"}
        watch = train_once(small(head, attention=attention, auxiliary=auxiliary))
        assert "convolution_backward" in watch.seen  # gradients were formed under the watch

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_no_backbone(self, backbone: str) -> None:
        more = {"width": 0.1} if backbone.startswith("mit") else {}
        train_once(small("fcn", backbone, **more))

    @pytest.mark.fault("P2", "an operation that a GPU sums in an order of its own, in any method")
    @pytest.mark.parametrize("name", available())
    def test_no_method(self, name: str) -> None:
        others = [method_config(name, options, where="a test") for options in OTHERWISE.get(name, [])]
        coarser = [Subject(name, config, SITUATIONS[-1]) for config in others]
        for subject in [fitting(name, config) for config in configs(name)] + coarser:
            method = subject.method()
            with Watch():
                first = step(method, subject.case())
                second = critic_step(method, subject.case())
                pretrain_once(subject)
            assert first.finite and second.finite

    @pytest.mark.fault("P2", "an operation that a GPU sums in an order of its own, anywhere in a run")
    def test_no_step_of_a_whole_run(self, new_project: Callable[..., Path]) -> None:
        root = new_project("strict", strictly)
        with Watch() as watch:
            for run, train in ((TEACHER, steps.teacher), (TAUGHT, steps.student)):
                train(run, steps.Options(root=root))
                evaluate(run, root=root)
        assert torch.are_deterministic_algorithms_enabled() and "bincount" in watch.seen
        record = read_json(root / TAUGHT.folder / "run.json")
        assert record["config"]["recipe"]["determinism"] == record["determinism"]["mode"] == "strict"
        assert not any(record["determinism"]["tf32"].values())


def strictly(params: dict[str, Any]) -> None:
    """Strict, and as short as a run with a look at val can be."""
    params["datasets"]["digits"]["scenes"] = {"train": 4, "val": 1, "test": 1}
    evaluation = {"split": "test", "select_every": 2}
    params["recipes"]["tiny"] |= {"determinism": "strict", "iterations": 2, "evaluation": evaluation}


class TestTheWatch:
    def test_knows_every_operation_that_the_documentation_names(self) -> None:
        assert documented() <= set(RAISES)
        assert len(documented()) > 15
        for name in GUARDS:
            assert hasattr(torch.ops.aten, name), name

    @pytest.mark.parametrize("head", ["deeplabv3plus", "segformer"])
    def test_finds_them_in_fast_mode(self, head: str) -> None:
        determinism.enforce("fast")
        with pytest.raises(AssertionError, match="nll_loss2d_forward"):
            train_once(small(head))
        x = torch.randn(1, 1, 3, 3, requires_grad=True)
        with Watch(), pytest.raises(AssertionError, match="upsample_bilinear2d_backward"):
            torch.nn.functional.interpolate(x, size=(5, 5), mode="bilinear").sum().backward()


class TestModes:
    def test_strict_gives_the_same_loss_and_gradients(self) -> None:
        losses, slopes = [], []
        for mode in ("fast", "strict"):
            determinism.enforce("strict" if mode == "strict" else "fast")
            torch.manual_seed(0)
            logits = torch.randn(2, 19, 9, 17, requires_grad=True)
            labels = torch.randint(0, 19, (2, 65, 129)).masked_fill(torch.rand(2, 65, 129) < 0.1, 255)
            loss = cross_entropy(logits, labels)
            losses.append(loss.detach())
            slopes.append(torch.autograd.grad(loss, logits)[0])
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-5, atol=1e-8)

    def test_what_a_network_costs_is_counted_the_same(self) -> None:
        counts = []
        for mode in get_args(determinism.Mode):
            determinism.enforce(mode)
            counts.append(flops(build(small("deeplabv3plus"), 5), (64, 96)))
        assert counts[0] == counts[1] > 0

    def test_settings_follow_the_mode(self, monkeypatch: pytest.MonkeyPatch) -> None:
        choose("float32", 1, "strict")
        found = determinism.settings()
        assert found["mode"] == "strict" and found["cudnn_deterministic"] and not found["cudnn_benchmark"]
        assert found["cublas_workspace"] == ":4096:8" and found["tf32"] == {"convolutions": False, "products": False}
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        determinism.enforce("strict")
        assert determinism.settings()["cublas_workspace"] == ":16:8"
        choose("float32", 1)
        assert determinism.settings()["mode"] == "fast" and not determinism.settings()["cudnn_deterministic"]

    def test_two_processes_end_in_the_same_bits(self, new_project: Callable[..., Path], tmp_path: Path) -> None:
        here, there = new_project("here", strictly), tmp_path / "there"
        shutil.copytree(here, there)
        code = "import sys; from pathlib import Path; from segkd import steps; from segkd.config.runs import Run\n"
        code += "steps.teacher(Run('tiny', 'large'), steps.Options(root=Path(sys.argv[1])))"
        other = subprocess.Popen([sys.executable, "-c", code, str(there)])
        steps.teacher(TEACHER, steps.Options(root=here))
        assert other.wait() == 0
        records = [read_json(root / TEACHER.folder / "run.json") for root in (here, there)]
        assert records[0]["weights"]["sha256"] == records[1]["weights"]["sha256"]
        assert records[0]["determinism"] == records[1]["determinism"]
