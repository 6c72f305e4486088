"""Shared by all tests: one thread each (they run in parallel), one cache of the session's own, small real models.

What takes long is done once: the engine's kernels are compiled before xdist starts its workers, which would else each compile
them; the cache folder (machine profile, targets, routed circuits, all named by content and written whole or not at all) is
shared by all workers; `captured_once` captures a model once for many plans. Routing starts no processes of its own beside
xdist's, which would each import everything again, and inductor neither; the test that is about them asks for them. Executors
route with one seed in place of ten, but where a test says how many.
"""

from __future__ import annotations

import gc
import multiprocessing
import os

# before any library starts its threads: they would wait for work in loops that take the other workers' time
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"):
    os.environ.setdefault(_name, "1")

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qcascade.capture import capture
from qcascade.capture.graph import CapturedModel
from qcascade.targets import Target

torch.set_num_threads(1)
gc.set_threshold(50_000, 20, 10)  # captured graphs are many small objects; the default looks through them all the time


def pytest_configure(config: pytest.Config) -> None:
    """Compile once, before there are workers; nothing to do where the compiled code is on the disk already."""
    if getattr(config.option, "numprocesses", None):  # absent in a worker, or without xdist
        other = multiprocessing.get_context("fork").Process(target=_run_every_kernel, args=(torch.float64,))
        other.start()
        _run_every_kernel(torch.float32)
        other.join()
        _run_every_kernel(torch.float64)  # is on the disk now, unless both wrote a function's index at once


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """The cores this process may use, where the system tells; xdist's own choice is all that the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """What tests run in processes, or share, has no tests and no examples: it is not imported in search of any."""
    beside = collection_path.suffix == ".py" and Path(__file__).parent in collection_path.parents
    return True if beside and not collection_path.name.startswith("test_") else None


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look through it again and again."""
    gc.freeze()


def _run_every_kernel(dtype: torch.dtype) -> None:
    from pytket.circuit import Circuit
    from sympy import Symbol

    from qcascade.circuits.observables import single_z
    from qcascade.circuits.template import CircuitTemplate
    from qcascade.engine import expectations, lower
    from qcascade.executors.pauli_program import laid_out
    from qcascade.executors.pauli_state import chances

    chances(laid_out([], {0: np.ones((1, 4))}), np.zeros((1, 0)), double=dtype == torch.float64)
    program = lower(CircuitTemplate(Circuit(1).Rx(Symbol("w"), 0), (), ("w",)))
    expectations(program, single_z(1), weights=torch.zeros(1, dtype=dtype, requires_grad=True)).sum().backward()


_LONGEST = (
    "zoo",
    "test_notebooks",
    "test_distributed",
    "test_bundle_onnx",
    "test_ladder",
    "test_docs",
    "test_loops",
    "test_study_cascade",
    "test_routing",
    "test_loops_distributed",
    "test_html_report",
    "test_regions",
    "test_bundle_fuzz",
    "test_executors",
    "test_hardware_costs",
    "test_dispatch",
    "test_targets",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest first, so that no worker is left with one at the end (with --no-loadscope-reorder)."""

    def place(item: pytest.Item) -> int:
        names = {item.path.stem, item.path.parent.name}
        return next((number for number, name in enumerate(_LONGEST) if name in names), len(_LONGEST))

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    shared = (
        base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    )  # a worker's own folder is inside the session's
    os.environ["QCASCADE_CACHE_DIR"] = str(shared / "cache")


@pytest.fixture(scope="session", autouse=True)
def _routed_in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _routed_with_one_seed() -> Iterator[None]:
    from qcascade.executors.device import DeviceExecutor

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DeviceExecutor.__init__.__kwdefaults__, "compile_seeds", 1)
        yield


_CAPTURED: dict[tuple[int, int], tuple[object, object, CapturedModel]] = {}


@pytest.fixture
def captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`qcascade.plan` captures one and the same model with one and the same inputs once; plans only read what is captured."""

    def once(model: nn.Module, inputs: object = None, **options: bool) -> CapturedModel:
        key = id(model), id(inputs)
        if key not in _CAPTURED:
            found = capture(model, inputs, **options)
            _CAPTURED[key] = model, inputs, found  # both are kept, so that no other takes their id
        return _CAPTURED[key][2]

    monkeypatch.setattr("qcascade.compiler.capture", once)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def sst2() -> Path:
    folder = Path(__file__).parents[1] / ".." / "shared" / "data" / "sst2"
    if not folder.is_dir():
        pytest.skip("the shared SST-2 files are not beside the checkout")
    return folder


@pytest.fixture(scope="session")
def torino() -> Target:
    """ibm_torino out of the snapshot that qiskit-ibm-runtime brings, which takes seconds to read."""
    from qiskit_ibm_runtime.fake_provider import FakeTorino

    return Target.from_qiskit(FakeTorino(), name="torino")


def bert(**options: object) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**_small(options)))


def roberta() -> nn.Module:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    return RobertaForSequenceClassification(RobertaConfig(**_small({})))


def distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    return DistilBertForSequenceClassification(
        DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64, vocab_size=99, initializer_range=0.2)
    )


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    options = {k: v for k, v in _small({"num_hidden_layers": 1}).items() if k != "vocab_size"}
    return ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **options))


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=99, bos_token_id=0, eos_token_id=0))


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_small({"num_hidden_layers": 1, "num_key_value_heads": 1})))


def _small(options: dict[str, object]) -> dict[str, object]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 99,
        "initializer_range": 0.2,
        **options,
    }


CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "bert": bert,
    "bert written out": lambda: bert(attn_implementation="eager"),
    "roberta": roberta,
    "distilbert": distilbert,
    "vit": vit,
}


def text_inputs(batch: int = 3, length: int = 11) -> dict[str, torch.Tensor]:
    """Ids and a mask that masks something."""
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1, length // 2 :] = 0
    return {"input_ids": torch.randint(2, 99, (batch, length)), "attention_mask": mask}
