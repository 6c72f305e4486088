"""The study of adapters: SoRA against its definition, methods against peft's own figures, and a tiny study by the command."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn
from typer.testing import CliRunner

from qcascade.cli import app
from qcascade.errors import ExecutionError, QCascadeError
from qcascade.studies.adapters import language, screening, sentences, tables
from qcascade.studies.adapters.memory import training_bytes
from qcascade.studies.adapters.methods import adapt
from qcascade.studies.adapters.runs import METHODS, AdapterRun, LanguageModel
from qcascade.studies.adapters.screening import chosen_by_dev
from qcascade.studies.adapters.sora import SoraLinear, attach, gates_after_step, proximal_step
from qcascade.studies.records import Record, Records
from qcascade.studies.runs import run_all
from qcascade.studies.texts import Coded, digest_of
from qcascade.studies.training import DivergedError

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
SHAPE = LanguageModel(width=16, layers=2, words=60, length=8, steps=8, batch=4)
IDS = torch.arange(24).reshape(3, 8) + 1
TINY = screening.Budget(
    seeds=1, sweep=0, language_steps=4, language_evaluated=2, widths=(), methods=("none",),
    language=LanguageModel(width=16, length=8, steps=4),
)  # fmt: skip


def bert() -> nn.Module:
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, vocab_size=60, max_position_embeddings=32
    )  # fmt: skip
    return transformers.BertModel(config, add_pooling_layer=False)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    return write_reviews(tmp_path / "reviews", "the plot is thin and the end is a long way off but the cast is fine")


def write_reviews(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, count in (("train", 40), ("test", 6)):
        lines = [f"{text} {'good' if i % 2 else 'bad'} film {i}\t{i % 2}\n" for i in range(count)]
        (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


def test_the_proximal_step_is_its_definition() -> None:
    gate, gradient = torch.randn(20).double(), torch.randn(20).double()
    moved = gate.clone()
    proximal_step(moved, gradient, 0.3, 0.7)
    for before, slope, after in zip(gate, gradient, moved, strict=True):
        point = float(before - 0.3 * slope)
        found = minimize_scalar(
            lambda z, p=point: 0.5 * (z - p) ** 2 + 0.3 * 0.7 * abs(z), bounds=(-9, 9), method="bounded"
        )
        assert float(after) == pytest.approx(found.x, abs=1e-4)


def test_proximal_gradient_comes_to_the_lasso() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    design, sparsity = random.normal(size=(50, 8)), 0.2
    answers = design @ np.array([2.0, -1.0, 0, 0, 0, 0, 0.5, 0]) + 0.1 * random.normal(size=50)
    layer = SoraLinear(nn.Linear(8, 1), 8).double()
    x, y = torch.tensor(design), torch.tensor(answers)
    with torch.no_grad():
        layer.down.weight.copy_(torch.eye(8))
        layer.up.weight.fill_(1.0)
        layer.base.weight.zero_()
        layer.base.bias.zero_()
    after = gates_after_step([layer], 0.1, sparsity)
    for _ in range(250):
        ((layer(x).squeeze() - y) ** 2).mean().mul(0.5).backward()
        left = after()
    lasso = linear_model.Lasso(alpha=sparsity, fit_intercept=False, tol=1e-10).fit(design, answers)
    np.testing.assert_allclose(layer.gate.detach().numpy(), lasso.coef_, atol=1e-6)
    assert left == (np.count_nonzero(lasso.coef_),) == (layer.rank,)


def test_sora_starts_as_the_layer_and_trains_beside_it() -> None:
    model = nn.Sequential()
    model.add_module("value", nn.Linear(6, 4))
    x = torch.randn(3, 6)
    before = model(x)
    layers = attach(model, ["value"], 2)
    torch.testing.assert_close(model(x), before)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "value.gate",
        "value.down.weight",
        "value.up.weight",
    ]
    assert layers[0].rank == 2
    with pytest.raises(ExecutionError, match="named nothing"):
        attach(model, ["nothing"], 2)
    with pytest.raises(ExecutionError, match="rank=0"):
        SoraLinear(nn.Linear(2, 2), 0)


@pytest.mark.parametrize("task_type", ["FEATURE_EXTRACTION", "CAUSAL_LM"])
def test_parameters_are_those_peft_reports(task_type: str) -> None:
    projections = sentences.PROJECTIONS if task_type == "FEATURE_EXTRACTION" else language.PROJECTIONS
    counts = {}
    for method in ("lora", "prefix"):
        base = bert() if task_type == "FEATURE_EXTRACTION" else language.small_model(SHAPE)
        adapted = adapt(base, method, 3, projections, {"input_ids": IDS}, task_type)
        assert adapted.trained == adapted.model.get_nb_trainable_parameters()[0]
        counts[method] = adapted.trained
    assert counts == {"lora": 2 * 2 * (3 * 16 + 16 * 3), "prefix": 2 * 2 * 3 * 16}
    base = bert() if task_type == "FEATURE_EXTRACTION" else language.small_model(SHAPE)
    assert adapt(base, "sora", 3, projections, {}, task_type).trained == counts["lora"] + 2 * 2 * 3


@pytest.mark.parametrize("method", METHODS)
def test_only_the_method_is_trained_and_most_start_as_the_model(method: str) -> None:
    torch.manual_seed(3)
    base = bert().eval()
    whole = {name: p.detach().clone() for name, p in base.named_parameters()}
    run = AdapterRun(0, "sentences", method, 2, 1e-2, 8, 4, 4, "here", "")
    with torch.no_grad():
        before = sentences.Pooled(base)(IDS)
    model, adapted = sentences.classifier(run, IDS, 2, base)
    with torch.no_grad():
        after = model.eval().encoder(IDS)
    same = torch.allclose(before, after, atol=1e-5)
    assert same == (method != "prefix")
    texts = Coded(torch.randint(1, 60, (12, 8)), torch.arange(12) % 2)
    training = sentences.fit(run, model, adapted, texts, texts)
    assert len(training.steps) == 8 and len(training.epochs) == 4
    changed = sum(
        p.numel() for n, p in _base(model, base, method).items() if n in whole and not torch.equal(p, whole[n])
    )
    assert (changed > 0) == (method == "full")
    memory = training_bytes(model, lambda: model(IDS).sum())
    trained = adapted.trained + sum(p.numel() for p in model.head.parameters())
    assert memory["gradients_and_moments"] == 3 * 4 * trained
    if method == "none":
        assert memory["activations"] < memory["weights"] / 10


def _loss(model: nn.Module) -> torch.Tensor:
    loss: torch.Tensor = model(torch.ones(2, 3)).exp().sum()
    return loss


def test_counting_memory_keeps_no_model_alive() -> None:
    """Saved outputs that a hook handed back as they were held their own graph, and with it the weights, for good."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    held = weakref.ref(model[0].weight)
    training_bytes(model, partial(_loss, model))
    del model
    gc.collect()
    assert held() is None


def _base(model: nn.Module, base: nn.Module, method: str) -> dict[str, torch.Tensor]:
    """The pretrained parameters after training; a hybrid has its own."""
    if method != "amplitude":
        return dict(base.named_parameters())
    return {name.removeprefix("encoder.model."): p for name, p in model.named_parameters()}


def test_a_prefix_is_seen_by_every_layer_of_bert() -> None:
    base = bert().eval()
    adapted = adapt(base, "prefix", 2, sentences.PROJECTIONS, {}, "FEATURE_EXTRACTION")
    wrapped = sentences.Pooled(adapted.model.eval())
    (prefix,) = adapted.groups[0]["params"]
    weight = torch.randn(3, 16)
    (wrapped(IDS) * weight).sum().backward()
    per_layer = prefix.grad.reshape(2, 2, 2, 16).abs().sum((0, 3))  # tokens, layers, keys and values, width
    assert (per_layer > 0).all()


def test_blocks_and_perplexity() -> None:
    from qcascade.studies.texts import Vocabulary

    words = Vocabulary.of(["a b c d"])
    blocks = language.cut(words, ["a b c", "d a", "b"], 2, "here")
    assert blocks.tolist() == [[2, 3], [4, 5], [2, 3]]
    with pytest.raises(ExecutionError, match="do not fill"):
        language.cut(words, ["a"], 2, "here")
    uniform = nn.Sequential(nn.Embedding(7, 7))
    nn.init.zeros_(uniform[0].weight)
    assert language.perplexity(uniform, blocks) == pytest.approx(7.0)
    model = language.small_model(SHAPE)
    ids = torch.randint(1, 60, (5, 8))
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss  # transformers' own shifted loss
    assert language.perplexity(language.Logits(model), ids) == pytest.approx(float(loss.exp()), rel=1e-4)
    assert chosen_by_dev("language", [3.0, 2.0, 4.0]) == 1
    nn.init.constant_(uniform[0].weight[:, 0], 1e4)
    with pytest.raises(DivergedError, match="mean loss"):  # its perplexity is no finite number
        language.perplexity(uniform, blocks)


def test_other_data_and_another_model_are_other_runs(tmp_path: Path, reviews: Path) -> None:
    """Records and pretrained weights of other reviews, or of another language model, were taken for those asked for."""
    out = tmp_path / "out"
    screening.Screening(out, TINY, None, reviews).run()
    others = [replace(TINY, language=replace(TINY.language, **{name: 12})) for name in ("length", "steps", "words")]
    for number, budget in enumerate((TINY, *others), 1):
        screening.Screening(out, budget, None, reviews).run()
        assert len(Records(out / "adapters.jsonl").all()) == number
    first = Records(out / "adapters.jsonl").all()[0].settings
    write_reviews(reviews, "another text of other words, of which some were never in the first one")
    screening.Screening(out, TINY, None, reviews).run()
    last = Records(out / "adapters.jsonl").all()[-1].settings
    assert len(Records(out / "adapters.jsonl").all()) == len(list((out / "checkpoints").glob("*.pt"))) == 5
    assert {name for name in first if first[name] != last[name]} == {"digest"}
    old = AdapterRun(**{**first, "language": LanguageModel(**first["language"])})
    with pytest.raises(ExecutionError, match="no longer holds"):
        screening.measure(replace(old, digest="0"), {"language": reviews}, out / "checkpoints", "cpu")


def test_a_rate_that_diverges_is_the_worst(tmp_path: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "RATES", {"language": {"full": (1e30, 2e-3)}})
    budget, out = replace(TINY, methods=("full",)), tmp_path / "out"
    results = screening.Screening(out, budget, None, reviews).run()
    found = results.rates["language", "full"]
    assert found[1e30] is None and found[2e-3] == results.main["language", "full"][0].measured["dev"]
    worst = Records(out / "adapters.jsonl").all()[0]
    assert worst.settings["rate"] == 1e30
    assert (
        worst.measured.keys() == {"dev", "test", "diverged"} and "lower the learning rate" in worst.measured["diverged"]
    )
    assert "1e+30: diverged, 0.002: " in tables.write(results, out, plots=False)
    monkeypatch.setattr(screening, "RATES", {"language": {"full": (1e30, 1e31)}})
    with pytest.raises(ExecutionError, match="language, full: every rate diverges"):
        screening.Screening(out, budget, None, reviews).run()


def test_tables_leave_out_what_diverged(tmp_path: Path) -> None:
    def run(seed: int, method: str, load: float, test: float | None, width: int = 16) -> Record:
        settings = {"task": "language", "method": method, "size": 4, "steps": 4, "batch": 16, "seed": seed}
        ended = {
            "dev": 9.0, "test": test, "test_before": 9.5, "parameters": 7, "memory": {"activations": 0}, "scored": [2, 2],
            "gates_left": 3.0, "step_seconds": 0.01, "loss": [1.0] * 4, "dev_curve": [9.0] * 4,
        }  # fmt: skip
        measured = {"dev": None, "test": None, "diverged": "the loss is nan."} if test is None else ended
        return Record({**settings, "language": {"width": width}}, measured, {}, {"load": load}, "a command", "")

    full = (run(0, "full", 3.2, 8.0), run(1, "full", 18.8, 6.0))
    sora = (run(0, "sora", 4.0, 8.5), run(1, "sora", 4.1, None))
    lost = (run(0, "sora", 4.0, None),)
    results = screening.Results(
        {("language", "full"): {0.1: None, 0.2: 9.0}},
        {("language", "full"): full, ("language", "sora"): sora},
        {("language", "sora", 4): sora, ("language", "sora", 16): lost},
        {("full", 16): full, ("sora", 32): (run(0, "sora", 4.0, None, 32),)},
    )
    tables.write(results, tmp_path)
    said = (tmp_path / "table.md").read_text(encoding="utf-8")
    for row in (
        "| full fine-tuning | 7 | 2 | 9.00 ± 0.00 | 7.00 ± 1.41 [-5.71, 19.71] |  | 10 (3–19) | 0 (0) |",
        "| SoRA, rank 4 | 7 | 1 | 9.00 | 8.50 | +0.50 | 10 (4) | 0 (0) |",  # seed 0 of both
        "| SoRA, rank 4 |  | 0 | diverged | diverged |  |",
        "| 32 | 5 | SoRA, rank 4 |  |  | diverged | diverged |",
        "| language | full fine-tuning | 0.1: diverged, 0.2: 9.00 |",
        "Of SoRA's gates 3.0 are left on average",
        "DivergedError, and left out: SoRA, rank 4, width 16, seed 1.",
    ):
        assert row in said
    assert "no comparison" in said and "ratios" not in said


def test_language_models_are_pretrained_before_their_runs(
    tmp_path: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers trained the same model at once, into the same file."""
    out, held = tmp_path / "out", list[int]()

    def counted(*given: Any, **options: Any) -> list[Record]:
        held.append(len(list((out / "checkpoints").glob("*.pt"))))
        return run_all(*given, **options)

    monkeypatch.setattr(screening, "run_all", counted)
    study = screening.Screening(out, replace(TINY, sweep=1, widths=(8,)), None, reviews)
    results = study.run()
    assert held == [1, 1, 2, 2]  # the rate, its seeds, either width
    for file in (out / "checkpoints").glob("*.pt"):
        file.unlink()
    assert study.run() == results  # what is done needs no weights
    assert not list((out / "checkpoints").glob("*.pt"))


def test_damaged_weights_are_one_error(tmp_path: Path, reviews: Path) -> None:
    shape, digest = TINY.language, digest_of(reviews)
    file = language.pretrain(reviews, digest, tmp_path, shape)
    whole = file.read_bytes()
    language.pretrained(tmp_path, digest, shape)
    for content in (b"", b"no weights", whole[:-200], whole[:200]):
        file.write_bytes(content)
        with pytest.raises(ExecutionError, match="delete it, and the command pretrains again"):
            language.pretrained(tmp_path, digest, shape)
    for held in ([1.0], {"weight": torch.ones(2)}, {"weight": 3}):
        torch.save(held, file)
        with pytest.raises(ExecutionError, match="delete it"):
            language.pretrained(tmp_path, digest, shape)


def test_results_that_cannot_be_written_are_said_before_anything_runs(
    tmp_path: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*given: object, **options: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(language, "fit", forbidden)
    (tmp_path / "file").touch()
    wrong = CliRunner().invoke(app, ["study", "adapters", "--out", str(tmp_path / "file"), "--reviews", str(reviews)])
    assert isinstance(wrong.exception, ExecutionError) and "cannot be written" in str(wrong.exception)


def test_the_command_goes_on_and_writes(tmp_path: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = {task: {method: found[:1] for method, found in rates.items()} for task, rates in screening.RATES.items()}
    monkeypatch.setattr(screening, "RATES", once)
    out = tmp_path / "out"
    arguments = [
        "study", "adapters", "--out", str(out), "--reviews", str(reviews), "--seeds", "1", "--sweep", "0", "--language-steps", "4",
        "--language-evaluated", "2", "--pretraining", "4", "--width", "16", "--length", "8", "--widths", "",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    table = (out / "table.md").read_text()
    assert all(
        name in table for name in ("LoRA, rank 4", "SoRA, rank 4", "prefix tuning", "amplitude adapter, layers 1")
    )
    assert (out / "language.png").stat().st_size < 200_000
    records = Records(out / "adapters.jsonl").all()
    full = next(r for r in records if r.settings["method"] == "full")
    assert full.measured["parameters"] == sum(
        p.numel() for p in language.small_model(LanguageModel(width=16, length=8)).parameters()
    )
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert len(Records(out / "adapters.jsonl").all()) == len(records)
    swept = {("language", "full", 1): (replace(full, command="of the sweep"),)}
    tables.write(screening.Results({}, {("language", "full"): (full,)}, swept, {}), out, plots=False)
    assert {full.command, "of the sweep"} <= {line.strip() for line in (out / "table.md").read_text().splitlines()}


def test_bad_wishes(tmp_path: Path) -> None:
    for given, message in (
        ([], "--data"),
        (["--reviews", ".", "--widths", "x"], "whole numbers"),
        (["--reviews", ".", "--width", "12"], "multiples"),
        (["--reviews", ".", "--steps", "6"], "--steps 6 must be a multiple of 4"),
        (["--reviews", ".", "--language-steps", "6"], "--language-steps 6 must be"),
        (["--reviews", ".", "--pretraining", "9"], "--pretraining 9 must be"),
        (["--reviews", ".", "--device", "foo"], "device='foo'"),
    ):
        wrong = CliRunner().invoke(app, ["study", "adapters", "--out", str(tmp_path), *given])
        assert isinstance(wrong.exception, QCascadeError) and message in str(wrong.exception)
    with pytest.raises(ExecutionError, match="choose one of"):
        adapt(bert(), "magic", 1, ("query",), {}, "")
    run = AdapterRun(0, "sentences", "full", 0, 1e-3, 8, 4, 4, "here", "")
    for changed, message in (
        ({"steps": 6}, "multiple of 4"),
        ({"task": "images"}, "choose one of"),
        ({"task": "language"}, "only 'language'"),
        ({"language": SHAPE}, "only 'language'"),
    ):
        with pytest.raises(ExecutionError, match=message):
            replace(run, **changed)
    with pytest.raises(ExecutionError, match="steps=2"):
        LanguageModel(steps=2)
