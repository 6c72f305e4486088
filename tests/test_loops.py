"""The hybrid under everyone's training loops: the loss falls, and a resumed run ends bit for bit where an uninterrupted one does."""

from __future__ import annotations

import copy
import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import bert
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, TensorDataset

import qcascade
from qcascade.hybrid import HybridModule

sys.path.insert(0, str(Path(__file__).parent / "loops"))
from task import KERNELS, data, make

IDS, LABELS = data()
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def made() -> HybridModule:
    return make()


@pytest.fixture(scope="module")
def steady() -> HybridModule:
    """Without dropout, whose random numbers inductor draws otherwise."""
    return make(0.0)


@pytest.fixture
def hybrid(made: HybridModule) -> HybridModule:
    return copy.deepcopy(made)


def evaluated(model: nn.Module) -> float:
    """The loss on all examples without dropout."""
    model.eval()
    with torch.no_grad():
        loss = float(cross_entropy(model(IDS), LABELS))
    model.train()
    return loss


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)


# ------------------------------------------------------------------------------------------------ plain torch


class Loop:
    """A plain loop with the variations people put in."""

    def __init__(self, model: HybridModule, variant: str) -> None:
        self.model, self.variant, self.call = model, variant, model
        flags = {variant: True} if variant in ("fused", "foreach") else {}
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, **flags)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 3e-2, total_steps=40)
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8)) if variant == "ema" else None

    def loss(self, ids: Tensor, labels: Tensor) -> Tensor:
        if self.variant == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                logits = self.model(ids)
        elif self.variant == "checkpointing":
            logits = checkpoint(self.model, ids, use_reentrant=False)
        else:
            logits = self.model(ids)
        return cross_entropy(logits.float(), labels)

    def step(self) -> None:
        rows = torch.randperm(len(IDS))[:32]  # the order of the data is random state too
        parts = rows.chunk(2) if self.variant == "accumulation" else (rows,)
        for part in parts:
            (self.loss(IDS[part], LABELS[part]) / len(parts)).backward()
        if self.variant == "clipping":
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def save(self, file: Path) -> None:
        state = {"rng": torch.get_rng_state(), "model": self.model.state_dict()}
        state |= {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}
        if self.average is not None:
            state["average"] = self.average.state_dict()
        torch.save(state, file)

    def load(self, file: Path) -> None:
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        torch.set_rng_state(state["rng"])


VARIANTS = ("plain", "accumulation", "autocast", "checkpointing", "clipping", "fused", "foreach", "ema")


@pytest.mark.parametrize("variant", VARIANTS)
def test_plain_loops_learn_and_resume(made: HybridModule, variant: str, tmp_path: Path) -> None:
    before = evaluated(copy.deepcopy(made))
    loop = Loop(copy.deepcopy(made), variant)
    for number in range(20):
        if number == 10:
            loop.save(tmp_path / "state.pt")
            evaluated(loop.model)  # fills the embedding's table, which the next steps make stale
        loop.step()
    assert evaluated(loop.model) < 0.7 * before
    assert evaluated(loop.model) == evaluated(copy.deepcopy(loop.model))  # copies hold no cached table
    if loop.average is not None:
        assert evaluated(loop.average.module) < 0.8 * before

    resumed = Loop(copy.deepcopy(made), variant)
    torch.manual_seed(99)
    resumed.load(tmp_path / "state.pt")
    for _ in range(10):
        resumed.step()
    assert same(resumed.model, loop.model)
    if loop.average is not None:
        assert same(resumed.average, loop.average)
    resumed.step()
    assert not same(resumed.model, loop.model)  # so the comparison can fail


def test_checkpointing_changes_no_gradient(made: HybridModule) -> None:
    """Recomputation draws the same dropout, and the embedding's unique tokens, again."""
    gradients = []
    for variant in ("plain", "checkpointing"):
        loop = Loop(copy.deepcopy(made), variant)
        torch.manual_seed(5)
        loop.loss(IDS, LABELS).backward()
        gradients.append({n: p.grad for n, p in loop.model.named_parameters()})
    assert all(torch.equal(gradients[0][n], gradients[1][n]) for n in gradients[0])


@pytest.mark.parametrize("write", ["fused", "data"])
def test_the_table_of_embeddings_follows_writes_that_leave_no_version(hybrid: HybridModule, write: str) -> None:
    evaluated(hybrid)
    angles = hybrid.kernels["embed"].angles
    version = angles._version
    if write == "fused":
        angles.grad = torch.ones_like(angles)
        torch.optim.SGD([angles], lr=0.5, fused=True).step()
    else:
        angles.data.add_(0.5)
    assert angles._version == version  # the case in question
    assert evaluated(hybrid) == evaluated(copy.deepcopy(hybrid))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


@pytest.fixture
def _scalar_code() -> Iterator[None]:
    """Inductor else finds out which vector instructions there are, by a compilation each: more than all of the model takes."""
    with importlib.import_module("torch._inductor.config").patch({"cpp.vec_isa_ok": False}):
        yield


@pytest.mark.usefixtures("_scalar_code")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_hybrids_learn_with_the_same_gradients(steady: HybridModule, backend: str) -> None:
    torch._dynamo.reset()
    if (
        backend == "inductor"
    ):  # seconds of C++ compilation for every operator: two kernels, no encoder layer between them
        steady = qcascade.compile(
            nn.Sequential(nn.Embedding(64, 16), Mean(), nn.Linear(16, 2)), IDS[:2], kernels=KERNELS
        )
        assert len(steady.kernels) == 2
    eager, other = copy.deepcopy(steady), copy.deepcopy(steady)
    compiled = torch.compile(other, backend=backend, fullgraph=True)
    cross_entropy(eager(IDS), LABELS).backward()
    cross_entropy(compiled(IDS), LABELS).backward()
    for (name, a), b in zip(eager.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-5, msg=name)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = cross_entropy(compiled(IDS), LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


# ------------------------------------------------------------------------------------------------ frameworks


class Rows(Dataset):
    """Rows as dictionaries, as Trainer wants them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __len__(self) -> int:
        return len(IDS)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {self.name: IDS[index], "labels": LABELS[index]}


@pytest.fixture
def _seeds() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture(scope="module")
def labelled() -> HybridModule:
    """A Hugging Face classifier captured with its labels: the hybrid computes the loss itself."""
    torch.manual_seed(0)
    model = bert(
        hidden_size=16, num_hidden_layers=1, intermediate_size=32, vocab_size=64, max_position_embeddings=8,
        hidden_dropout_prob=0.0, classifier_dropout=0.0,
    )  # fmt: skip
    return qcascade.compile(model, {"input_ids": IDS[:2], "labels": LABELS[:2]}, kernels=KERNELS, exclude="classifier")


@pytest.mark.usefixtures("_seeds")
@pytest.mark.parametrize("kind", ["its own loss", "a loss function"])
def test_trainer(made: HybridModule, labelled: HybridModule, kind: str, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    own = kind == "its own loss"

    def trained(folder: str, resume: str | None = None) -> Trainer:
        arguments = TrainingArguments(
            output_dir=str(tmp_path / folder), max_steps=40, save_steps=20, logging_steps=1, eval_strategy="steps", eval_steps=20,
            per_device_train_batch_size=8, gradient_accumulation_steps=2, learning_rate=1e-2 if own else 2e-2, max_grad_norm=1.0,
            report_to=[], disable_tqdm=True, use_cpu=True, seed=3, label_names=["labels"],
        )  # fmt: skip
        trainer = Trainer(
            model=copy.deepcopy(labelled if own else made),
            args=arguments,
            train_dataset=Rows("input_ids" if own else "ids"),
            eval_dataset=Rows("input_ids" if own else "ids"),
            compute_loss_func=None if own else lambda logits, labels, **_: cross_entropy(logits, labels),
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    straight = trained("straight")
    losses = [row["loss"] for row in straight.state.log_history if "loss" in row]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    resumed = trained("resumed", str(tmp_path / "straight" / "checkpoint-20"))
    assert same(straight.model, resumed.model)
    last = [[row["eval_loss"] for row in t.state.log_history if "eval_loss" in row][-1] for t in (straight, resumed)]
    assert last[0] == last[1]
    assert (tmp_path / "straight" / "checkpoint-40" / "model.safetensors").exists()


@pytest.mark.usefixtures("_seeds")
def test_accelerate(made: HybridModule, tmp_path: Path) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import ProjectConfiguration

    AcceleratorState._reset_state(reset_partial_state=True)  # Trainer leaves its own behind

    def run(steps: int, resume: bool) -> tuple[HybridModule, list[float]]:
        accelerator = Accelerator(
            cpu=True, mixed_precision="bf16", project_config=ProjectConfiguration(project_dir=str(tmp_path))
        )
        model = copy.deepcopy(made)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, 20)
        loader = DataLoader(TensorDataset(IDS, LABELS), 32)
        model, optimizer, scheduler, loader = accelerator.prepare(model, optimizer, scheduler, loader)
        torch.manual_seed(8)
        if resume:
            accelerator.load_state(str(tmp_path / "half"))
        losses = []
        for number in range(steps):
            for ids, labels in loader:
                loss = cross_entropy(model(ids).float(), labels)
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                losses.append(loss.item())
            if not resume and number == steps // 2 - 1:
                accelerator.save_state(str(tmp_path / "half"))
        return accelerator.unwrap_model(model), losses

    straight, losses = run(12, resume=False)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    resumed, _ = run(6, resume=True)
    assert same(straight, resumed)


@pytest.mark.usefixtures("_seeds")
def test_lightning(made: HybridModule, tmp_path: Path) -> None:
    import lightning

    class Lit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.hybrid, self.losses = copy.deepcopy(made), []

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            loss = cross_entropy(self.hybrid(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.9)]

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["rng"] = torch.get_rng_state()  # Lightning leaves it to the user

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.rng = checkpoint["rng"]

        def on_train_start(self) -> None:
            torch.set_rng_state(getattr(self, "rng", torch.get_rng_state()))

    def fit(epochs: int, resume: Path | None = None) -> tuple[Lit, Any]:
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, gradient_clip_val=1.0,
            enable_model_summary=False, enable_checkpointing=False, default_root_dir=str(tmp_path),
        )  # fmt: skip
        lit = Lit()
        loader = DataLoader(TensorDataset(IDS, LABELS), 32, generator=torch.Generator())  # draws nothing elsewhere
        trainer.fit(lit, loader, ckpt_path=resume, weights_only=False)
        return lit, trainer

    torch.manual_seed(4)
    half, trainer = fit(6)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(4)
    straight, _ = fit(12)
    assert sum(straight.losses[-4:]) < 0.8 * sum(straight.losses[:4])
    torch.manual_seed(77)
    resumed, _ = fit(12, tmp_path / "half.ckpt")
    assert same(straight.hybrid, resumed.hybrid)
    assert not same(straight.hybrid, half.hybrid)


@pytest.mark.usefixtures("_seeds")
def test_skorch(made: HybridModule, tmp_path: Path) -> None:
    from skorch import NeuralNetClassifier

    def net() -> NeuralNetClassifier:
        return NeuralNetClassifier(
            copy.deepcopy(made), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, lr=1e-2, batch_size=32,
            train_split=None, verbose=0, max_epochs=6,
        )  # fmt: skip

    files = {f"f_{kind}": str(tmp_path / kind) for kind in ("params", "optimizer", "history")}
    ids, labels = IDS.numpy(), LABELS.numpy()
    torch.manual_seed(4)
    straight = net().fit(ids, labels)
    straight.save_params(**files)
    state = torch.get_rng_state()
    straight.partial_fit(ids, labels)
    losses = straight.history[:, "train_loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert (straight.predict(ids) == labels).mean() > 0.8
    resumed = net().initialize()
    resumed.load_params(**files)
    torch.set_rng_state(state)
    resumed.partial_fit(ids, labels)
    assert same(straight.module_, resumed.module_)
