"""What all studies share: data, the loop, records, statistics, tables, plots."""

from __future__ import annotations

import base64
import json
import math
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from squares import Run, killed, squared
from torch import nn
from torch.nn import functional as F
from waiting import until

from qcascade.errors import ExecutionError
from qcascade.studies import batches, plots
from qcascade.studies.folds import split_by_fold
from qcascade.studies.records import Records
from qcascade.studies.results import write_results
from qcascade.studies.runs import run_all
from qcascade.studies.statistics import compare, summarise
from qcascade.studies.tables import StudyTable, to_markdown
from qcascade.studies.texts import Coded, Split, Texts, Vocabulary, encode, read_split, read_texts
from qcascade.studies.training import Protocol, train


def test_texts_have_a_seeded_dev_where_there_is_none(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.tsv").write_text("".join(f"word{i} text\t{'ab'[i % 2]}\n" for i in range(40)))
    texts, again = read_texts(tmp_path), read_texts(tmp_path)
    assert texts == again
    assert (len(texts.train), len(texts.dev), len(texts.test)) == (35, 5, 40)
    assert {*texts.train.texts, *texts.dev.texts} == {*texts.test.texts}
    assert read_texts(tmp_path, seed=1).dev != texts.dev
    assert texts.numbers(texts.test).tolist() == [i % 2 for i in range(40)]
    words, train_, dev, _ = encode(texts, 2)
    assert len(words) == int(train_.ids.max()) + 1
    assert (dev.ids[:, 0] == 1).all()  # their first words are not in train
    (tmp_path / "dev.tsv").write_text("one\ta\n")
    assert len(read_texts(tmp_path).train) == 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must hold train.tsv"),
        (b"", "is empty"),
        (b"fine\t1\nno label", "line 2 is not"),
        (b"\xff\t1", "UTF-8"),
        (b"sentence\tlabel\nso it is\t1\nnot so\t0\n", "looks like a head of columns"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "train.tsv").write_bytes(content)
    with pytest.raises(ExecutionError, match=message):
        read_split(tmp_path / "train.tsv")


def test_a_text_may_hold_any_sign_but_a_new_line(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_bytes(
        "\ufeffone\u2028two\t1\r\nthree\x0cfour\x85five\t0\r\nsix\tseven\t0\n".encode()
    )
    found = read_split(tmp_path / "train.tsv")
    assert found == Split(("one\u2028two", "three\x0cfour\x85five", "six\tseven"), ("1", "0", "0"))


@pytest.mark.parametrize(
    ("train_", "test", "message"),
    [
        ("a b\t1\nc d\t1\n", "a b\t1\n", "one label alone"),
        ("a b\t1\nc d\t0\n", "a b\t1\nc d\tneg\n", "test.tsv, line 2: the label 'neg' is none of train's \\(0, 1\\)"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(tmp_path: Path, train_: str, test: str, message: str) -> None:
    (tmp_path / "train.tsv").write_text(train_)
    (tmp_path / "test.tsv").write_text(test)
    with pytest.raises(ExecutionError, match=message):
        read_texts(tmp_path, dev_share=0.0)


def coded(count: int = 50) -> Coded:
    generator = torch.Generator().manual_seed(0)
    rows = [
        torch.randint(2, 9, (int(n),), generator=generator) for n in torch.randint(1, 8, (count,), generator=generator)
    ]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Coded(ids, (ids[:, 0] > 5).long())


def test_batches_hold_every_text_once_and_are_trimmed() -> None:
    data = coded()
    found = list(batches.shuffled(data, 8, torch.Generator().manual_seed(3)))
    assert len(found) == batches.count_batches(data, 8) == 7
    assert all((batch.ids[:, -1] != 0).any() for batch in found)
    rows = sorted(
        (batch_row[batch_row != 0].tolist(), int(y))
        for b in found
        for batch_row, y in zip(b.ids, b.labels, strict=True)
    )
    assert rows == sorted((row[row != 0].tolist(), int(y)) for row, y in zip(data.ids, data.labels, strict=True))
    dropped = list(batches.shuffled(data, 8, torch.Generator().manual_seed(3), word_dropout=1.0))
    assert all(((batch.ids == 0) | (batch.ids == 1)).all() for batch in dropped)


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.table, self.drop, self.head = nn.Embedding(9, 6, padding_idx=0), nn.Dropout(0.3), nn.Linear(6, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.table(ids).sum(1)))


PROTOCOL = Protocol(epochs=4, batch=8, rate=0.02, seed=7)


def trained(model: nn.Module, checkpoint: Path | None = None, stop_after: int | None = None) -> object:
    data, count = coded(), 0

    def advance() -> None:
        nonlocal count
        count += 1
        if count == stop_after:
            raise KeyboardInterrupt

    return train(
        model,
        lambda g: batches.shuffled(data, 8, g, 0.1),
        batches.count_batches(data, 8),
        batches.classification_loss,
        PROTOCOL,
        evaluate=lambda m: {"accuracy": batches.accuracy(m, data)},
        checkpoint=checkpoint,
        advance=advance,
    )


def test_training_killed_in_the_middle_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, model = trained(one := Bag()), Bag()
    with pytest.raises(KeyboardInterrupt):
        trained(model, tmp_path / "run.pt", stop_after=17)
    again = trained(other := Bag(), tmp_path / "run.pt")
    assert [s.loss for s in again.steps] == [s.loss for s in whole.steps]
    assert [e.scores for e in again.epochs] == [e.scores for e in whole.epochs]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert whole.epochs[-1].loss < 0.9 * whole.epochs[0].loss
    for damage in (b"junk", pickle.dumps([1, 2])):
        (tmp_path / "other.pt").write_bytes(damage)
        with pytest.raises(ExecutionError, match="delete it"):
            trained(Bag(), tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "other.pt")
    with pytest.raises(ExecutionError, match="delete it"):
        trained(Bag(), tmp_path / "other.pt")
    with pytest.raises(ExecutionError, match="rate positive and finite"):
        Protocol(rate=float("nan"))
    with pytest.raises(ExecutionError, match="another protocol"):
        train(other, lambda g: [], 1, batches.classification_loss, Protocol(epochs=9), checkpoint=tmp_path / "run.pt")


def test_the_loop_is_torchs_own_adamw_with_linear_warmup_and_decay() -> None:
    x, y, model = torch.randn(6, 3), torch.arange(6) % 2, nn.Linear(3, 2)
    twin = nn.Linear(3, 2)
    twin.load_state_dict(model.state_dict())
    train(
        model,
        lambda g: [(x, y)] * 2,
        2,
        lambda m, b: F.cross_entropy(m(b[0]), b[1]),
        Protocol(epochs=5, rate=0.1, warmup=0.3),
    )
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.1)
    for rate in (1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8):
        optimizer.param_groups[0]["lr"] = 0.1 * rate
        optimizer.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
    torch.testing.assert_close(model.weight, twin.weight)


def test_records_go_on_after_a_line_was_cut_short(tmp_path: Path) -> None:
    records = Records(tmp_path / "out" / "runs.jsonl")
    records.add(Run(1), {"square": 1})
    with records.path.open("ab") as file:
        file.write(b'{"settings": {"se')
    assert [r.measured for r in records.all()] == [{"square": 1}]
    done = run_all([Run(1), Run(3)], squared, records)
    assert [r.measured["square"] for r in done] == [1, 9]
    assert [json.loads(line)["settings"] for line in records.path.read_text().splitlines()] == [
        {"seed": 1},
        {"seed": 3},
    ]
    records.path.write_text("nonsense\n")
    with pytest.raises(ExecutionError, match="line 1 is not a run's record"):
        records.all()


def test_records_that_cannot_be_written_are_told_of_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "runs.jsonl").mkdir()
    for folder in (tmp_path / "file", tmp_path / "file" / "sub", tmp_path, Path("/proc/nowhere")):
        with pytest.raises(ExecutionError, match="give a"):
            run_all([Run(1)], lambda run: pytest.fail("ran"), Records(folder / "runs.jsonl"))


def test_equal_runs_are_done_once(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Choosy:
        seed: int
        idle: int = 0

        @staticmethod
        def identity(settings: Mapping[str, object]) -> Mapping[str, object]:
            return {"seed": settings["seed"]}

    done, records = list[int](), Records(tmp_path / "runs.jsonl")
    found = run_all(
        [Choosy(2), Choosy(2), Choosy(3), Choosy(2, 7)], lambda s: done.append(s.seed) or {"is": s.seed}, records
    )
    assert done == [2, 3]
    assert [record.measured["is"] for record in found] == [2, 2, 3, 2]
    assert len(records.all()) == 2


def test_an_option_younger_than_a_record_counts_as_its_default(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Inner:
        width: int
        depth: int = 2

    @dataclass(frozen=True)
    class Younger:
        seed: int
        inner: Inner
        other: Inner = field(default_factory=lambda: Inner(7))

    records = Records(tmp_path / "runs.jsonl")
    line = {
        "settings": {"seed": 1, "inner": {"width": 3}},
        "measured": {},
        "versions": {},
        "machine": {},
        "command": "",
        "finished": "",
    }
    records.path.write_text(json.dumps(line) + "\n")
    assert records.find(Younger(1, Inner(3))) is not None
    for other in (Younger(2, Inner(3)), Younger(1, Inner(3, 4)), Younger(1, Inner(3), Inner(8)), Run(1)):
        assert records.find(other) is None


def test_workers_write_the_same_records(tmp_path: Path) -> None:
    records = Records(tmp_path / "runs.jsonl")
    torch.set_num_threads(2)
    try:
        done = run_all([Run(n) for n in range(3)], squared, records, workers=2)
    finally:
        torch.set_num_threads(1)
    assert [r.measured["square"] for r in done] == [0, 1, 4]
    assert {record.machine["threads"] for record in records.all()} == {1}  # of the workers, whatever this process has
    with pytest.raises(ExecutionError, match="workers=0"):
        run_all([Run(9)], squared, records, workers=0)
    with pytest.raises(ExecutionError, match=r"died.*fewer workers"):
        run_all([Run(10), Run(11)], killed, records, workers=2)


def test_workers_end_with_the_process_that_they_work_for(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    code = f"""
from functools import partial
from pathlib import Path
from qcascade.studies.records import Records
from qcascade.studies.runs import run_all
from squares import Run, endless
if __name__ == "__main__":
    run_all([Run(0), Run(1)], partial(endless, folder=Path({str(pids)!r})), Records(Path({str(tmp_path)!r}) / "runs.jsonl"), workers=2)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        until(lambda: len(list(pids.iterdir())) == 2)
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not any(_runs(int(file.name)) for file in pids.iterdir()))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_statistics_are_scipys() -> None:
    first, second = [80.0, 81.5, 79.0, 80.5, 82.0], [80.5, 81.0, 80.2, 81.0, 82.9]
    found, pairs = summarise(first), compare(first, second)
    interval = stats.ttest_1samp(first, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    own = stats.ttest_rel(second, first)
    assert pairs.t_test == pytest.approx(own.pvalue)
    assert (pairs.low, pairs.high) == pytest.approx(tuple(own.confidence_interval(0.95)))
    assert pairs.wilcoxon == pytest.approx(stats.wilcoxon([b - a for a, b in zip(first, second, strict=True)]).pvalue)
    assert (summarise([3.0]).deviation, compare([1.0], [2.0]).t_test) == (None, None)
    for bad in (lambda: summarise([]), lambda: compare([1.0], [])):
        with pytest.raises(ExecutionError):
            bad()


def test_pairs_that_overlap_are_tested_more_carefully() -> None:
    """Nadeau and Bengio's t: the usual one, its error larger by √((1/n + overlap) / (1/n))."""
    first, second = [80.0, 81.5, 79.0, 80.5], [80.5, 81.0, 80.2, 81.0]
    usual, pairs = compare(first, second), compare(first, second, overlap=0.5)
    larger = math.sqrt((1 / 4 + 0.5) / (1 / 4))
    assert pairs.difference == usual.difference and pairs.wilcoxon is None
    assert usual.low is not None and pairs.low is not None and pairs.high is not None
    assert (pairs.low, pairs.high) == pytest.approx(
        tuple(usual.difference + sign * larger * (usual.difference - usual.low) for sign in (-1, 1))
    )
    statistic = stats.ttest_rel(second, first).statistic
    assert pairs.t_test == pytest.approx(2 * stats.t.sf(statistic / larger, 3))


@settings(deadline=None)
@given(st.data())
def test_folds_test_every_text_once_and_train_on_none_that_they_test(data: st.DataObject) -> None:
    pool = data.draw(st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab")), min_size=40, max_size=90))
    label = dict(pool)  # a text that stands several times has one label here
    pairs = [(str(text), label[text]) for text, _ in pool]
    counts = Counter(dict(pairs).values())
    folds = data.draw(st.integers(2, 5))
    assume(len(counts) == 2 and min(counts.values()) > folds)
    split = Split(tuple(text for text, _ in pairs), tuple(own for _, own in pairs))
    texts = Texts(
        "pool", split.at(range(0, len(split), 2)), Split((), ()), split.at(range(1, len(split), 2)), ("a", "b")
    )
    first = folds * data.draw(st.integers(0, 3))
    tested: list[tuple[str, str]] = []
    for seed in range(first, first + folds):
        found = split_by_fold(texts, folds, seed)
        parts = [{*zip(part.texts, part.labels, strict=True)} for part in (found.train, found.dev, found.test)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        assert len(found.train) + len(found.dev) + len(found.test) == len(split)
        for own, count in counts.items():
            assert abs(sum(other == own for _, other in parts[2]) - count / folds) < 1
        tested.extend(zip(found.test.texts, found.test.labels, strict=True))
    assert sorted(tested) == sorted(pairs)
    assert split_by_fold(texts, folds, first) == split_by_fold(texts, folds, first)


def test_folds_that_cannot_be_made() -> None:
    split = Split(("x", "y", "z"), ("a", "a", "b"))
    texts = Texts("small", split.at((0, 1)), Split((), ()), split.at((2,)), ("a", "b"))
    with pytest.raises(ExecutionError, match="at least 2"):
        split_by_fold(texts, 1, 0)
    with pytest.raises(ExecutionError, match="choose fewer folds"):
        split_by_fold(texts, 3, 2)
    with pytest.raises(ExecutionError, match="choose fewer folds"):
        split_by_fold(texts, 4, 0)


def test_differences_that_are_all_alike_have_no_interval() -> None:
    first = [100 * right / 1821 for right in (1400, 1400, 1413)]
    pairs = compare(first, [100 * (right + 5) / 1821 for right in (1400, 1400, 1413)])
    assert (pairs.low, pairs.high, pairs.t_test, pairs.wilcoxon) == (None, None, None, None)
    assert pairs.difference == pytest.approx(500 / 1821)
    small = compare([1e-12, 2e-12, 3e-12], [2e-12, 4e-12, 4e-12])
    assert small.difference == pytest.approx(4e-12 / 3)
    assert small.t_test is not None


def test_tables_say_the_same_on_a_terminal_and_in_markdown() -> None:
    table = StudyTable("Accuracy", ("model", "test"), (("a|b", "80.0"), ("c", "81.0")), ("Measured.",))
    assert "| a\\|b | 80.0 |" in to_markdown("Study", [table], ["qcascade study x", "qcascade study x"])
    assert all(word in table.text() for word in ("Accuracy", "a|b", "81.0", "Measured."))
    with pytest.raises(ExecutionError, match="2 columns"):
        StudyTable("Bad", ("a", "b"), (("1",),))


def test_results_are_the_same_in_markdown_and_on_a_page_of_one_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with plots.plot(tmp_path / "both-ways.png", title="both") as (axes,):
        plots.curves(axes, {"a": ([1, 2], [1.0, 2.0])}, "n", "seconds")
    made = StudyTable("Accuracy <of n>", ("model", "test"), (("a|b", "80.0 ± 1"), ("c", "81.0")), ("Measured.",))
    write_results(tmp_path, "Study", [made], ["qcascade study x --data 'a b'"])
    assert not (tmp_path / "report.html").exists()
    write_results(tmp_path, "Study", [made], ["qcascade study x --data 'a b'"], page=True)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for held in ("Accuracy &lt;of n&gt;", "80.0 ± 1", "Measured.", "both ways", "study x --data &#x27;a b&#x27;"):
        assert held in page, held
    assert base64.b64encode((tmp_path / "both-ways.png").read_bytes()).decode() in page
    assert "default-src 'none'" in page and "80.0 ± 1" in (tmp_path / "table.md").read_text(encoding="utf-8")
    with pytest.raises(ExecutionError, match=r"table\.md cannot be written"):
        write_results(tmp_path / "absent", "Study", [made], [])


def test_plots_are_small_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = {"a": ([1, 2, 4], [1.0, 2.0, 3.0]), "b": ([1, 2, 4], [3.0, 2.0, 1.0])}
    with plots.plot(tmp_path / "new" / "p.png", columns=2, title="both") as (left, right):
        plots.curves(left, lines, "n", "seconds", log="xy", bands={"a": ([0.5, 1, 2], [2, 3, 4])})
        plots.curves(right, {"a": lines["a"]}, "n", "bytes")
    data = (tmp_path / "new" / "p.png").read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) < 200_000


def test_vocabulary_is_trains() -> None:
    texts = Texts("t", Split(("a b b",), ("x",)), Split((), ()), Split(("c",), ("y",)), ("x", "y"))
    words, train_, dev, test = encode(texts, 5)
    assert (train_.ids.tolist(), test.ids.tolist(), len(dev), len(words)) == ([[3, 2, 2]], [[1]], 0, 4)
    assert Vocabulary.of(["a b b"], most=1).numbers == {"b": 2}
