"""Trainings that are broken off, and go on as if nothing had been."""

import io
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from said import Deq
from training_runs import SMALL, complete, training

from db import Store
from experiments.cli import main
from experiments.runner import engines, progress
from experiments.runner import study as runner
from experiments.studies import find
from experiments.trainer.checkpoints import Checkpoint, of_config

Opened = Callable[[], Store]
SPENT = ("seconds", "test.seconds", "train.seconds")

# Everything that one step hands to the next: momenta, tolerances, warm starts, memory, masks.
KINDS = {
    "auto": ["reltol=auto", "gradient.warm_start=true", "warm_start=true", "pretrain.steps=2",
             "optimiser=sgd", "optimiser.momentum=0.9", "regularisation.probability=0.5",
             "batch=4", "eval_batches=1"],
    "segments": ["model=transformer", "model.memory=4", "model.dropout=0.2", "warm_start=true",
                 "schedule=plateau", "schedule.patience=1", "evaluate_every=3", "batch=4",
                 "eval_batches=1", "data.name=pydoc", "data.length=8"],
    "explicit": ["model.layers=3", "gradient=unrolled", "schedule=cosine", "optimiser=adamw"],
}  # fmt: skip


def counted(state: dict[str, Any]) -> dict[str, Any]:
    """Return all that is the same in each run: all but seconds."""
    tally = {k: v for k, v in state["tally"].items() if k not in SPENT}
    series = {k: v for k, v in state["series"].items() if k not in SPENT}
    return {"tally": tally, "series": series}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("words", KINDS.values(), ids=KINDS)
def test_bit_for_bit(workplace: Path, words: list[str]) -> None:
    words = [*words, "steps=8", "keep_checkpoint=true"]
    with training(*words) as straight:
        result = straight.run()
        end = straight.checkpoint.load()
    straight.checkpoint.remove()
    with training(*words) as first:
        # ends as by SIGTERM after some step; the fifth at the latest has been weighed
        first.config.__dict__["steps"] = random.Random(1).randrange(5, 8)
        first._train(_Dark())
        first.save()
    with training(*words) as second:
        second.recorder.resume = "must"
        torch.manual_seed(123)  # whatever came before
        again = second.run()
        assert second.recorder.info["resumed_from"] == first.recorder.uuid
    then = Checkpoint(second.checkpoint.path).load()
    for part in ("modules", "optimiser", "network", "starts", "random", "rate"):
        assert same(end[part], then[part]), part
    assert counted(end) == counted(then)
    for name in ("loss", "evaluations", "products", "work", "peak_bytes", "train_loss"):
        assert result[name] == again[name]


class _Dark:
    def show(self, seen: object, *, last: bool = False) -> None:
        return

    def close(self) -> None:
        return


LONG = (
    "steps=150", "checkpoint_every=5", "evaluate_every=75", "keep_checkpoint=true",
    "measure_memory=false", "solver=picard", "max_evaluations=4", "fixed_budget=true",
    "gradient=jacobian_free",
)  # fmt: skip  # short steps, and many


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The end of a run that nothing broke off."""
    place = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("DEQ_STORE", str(place / "store.db"))
        torch.set_num_threads(1)
        assert main(["run", "training", "with", *SMALL, *LONG]) == 0
        return of_config(complete(*LONG)).load()


def begun(number: signal.Signals) -> int:
    """Train in a process of its own, send it a signal after some steps, and return how it ended."""
    child = os.fork()  # so that it need not import everything again
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else as pytest was started
        code = 1
        try:
            code = main(["run", "training", "with", *SMALL, *LONG])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        finally:
            os._exit(code)
    wait()
    os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait() -> None:
    """Wait for a checkpoint, and for some of the next steps."""
    end = time.monotonic() + 60
    while not of_config(complete(*LONG)).exists():
        assert time.monotonic() < end, "no checkpoint was written"
        time.sleep(0.001)
    time.sleep(random.random() / 50)


ENDS = {
    signal.SIGINT: (130, "INTERRUPTED"),
    signal.SIGTERM: (143, "TERMINATED"),
    signal.SIGKILL: (-9, "DIED"),
}


@pytest.mark.parametrize("number", ENDS, ids=lambda n: n.name)
def test_broken_off_by_a_signal(
    number: signal.Signals, straight: dict[str, Any], deq: Deq, store: Opened
) -> None:
    code, status = ENDS[number]
    assert begun(number) == code
    if number is signal.SIGKILL:
        assert deq("runs", "reap").code == 0
    assert store().run(1)["status"] == status
    there = of_config(complete(*LONG)).load()["steps"]
    assert 5 <= there < 150
    assert (there % 5 == 0) >= (status == "DIED")
    said = deq("resume", "1")
    assert said.code == 0, said.err
    assert f"going on with run 1 after step {there} of 150" in said.out
    end = of_config(complete(*LONG)).load()
    assert same(end["modules"], straight["modules"])
    assert counted(end) == counted(straight)
    run = store().run(2)
    assert run["info"]["resumed_from"] == store().run(1)["uuid"]
    assert run["parent_id"] == 1
    steps = store().series("id=2", "train.loss")["step"]
    assert list(steps) == [*range(0, 150, 4), 149]  # whole
    again = deq("resume", "2")
    assert again.code == 2
    assert "run 2 completed already (loss " in again.err


def broken_off(words: tuple[str, ...], config: dict[str, Any]) -> Checkpoint:
    """Leave a run that was interrupted, with its checkpoint."""
    with pytest.raises(KeyboardInterrupt), training(*words) as trainer:
        trainer.recorder.info["checkpoint"] = str(trainer.checkpoint.path.absolute())
        trainer.config.__dict__["steps"] = 2
        trainer._train(_Dark())
        trainer.save()
        raise KeyboardInterrupt
    return of_config(config)


@pytest.fixture
def interrupted(workplace: Path) -> Checkpoint:
    words = ("steps=6", "measure_memory=false")
    return broken_off(words, complete(*words))


def test_what_cannot_go_on_is_said(interrupted: Checkpoint, deq: Deq) -> None:
    whole = interrupted.path.read_bytes()
    interrupted.path.write_bytes(whole[: len(whole) // 2])
    said = deq("resume", "1")
    assert said.code == 2
    assert "is truncated or damaged" in said.err
    assert "remove it to begin anew" in said.err
    third = len(whole) // 3
    interrupted.path.write_bytes(whole[:third] + bytes(third) + whole[2 * third :])
    assert "is truncated or damaged" in deq("resume", "1").err
    interrupted.remove()
    said = deq("resume", "1")
    assert said.code == 2
    assert "there is no checkpoint of run 1" in said.err
    assert "checkpoint_every = 0" in said.err
    said = deq("resume", "7")
    assert said.code == 2
    assert "no run 7" in said.err or "7" in said.err


def test_other_code_goes_on_only_when_told(
    interrupted: Checkpoint, deq: Deq, store: Opened
) -> None:
    state = interrupted.load()
    config = complete("steps=6", "measure_memory=false")
    state["code"]["torch"] = "1.0"
    torch.save(state, interrupted.path)
    said = deq("resume", "1")
    assert said.code == 2
    assert "the code has changed since the checkpoint was written (torch)" in said.err
    assert "`deq resume 1 --changed`" in said.err
    assert deq("resume", "1", "--changed").code == 0
    assert store().run(2)["info"]["resumed_at"] == 2
    assert store().config(2) == config
    assert "run 2 went on from it and completed" in deq("resume", "1").err


def test_another_config_is_named(interrupted: Checkpoint, deq: Deq) -> None:
    other = of_config(complete("steps=7", "measure_memory=false"))
    other.save({"steps": 2}, complete("steps=7", "measure_memory=false"), {})
    other.path.replace(interrupted.path)
    said = deq("resume", "1")
    assert said.code == 2
    assert "of another config than run 1: steps" in said.err


def test_a_write_that_fails_leaves_the_last_one(
    interrupted: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = interrupted.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        interrupted.save({"steps": 3}, complete("steps=6", "measure_memory=false"), {})
    assert interrupted.path.read_bytes() == before
    assert [p.name for p in interrupted.path.parent.iterdir()] == ["last.pt"]


def test_a_study_goes_on_and_takes_divergence_for_an_answer(workplace: Path, store: Opened) -> None:
    base = dict(word.split("=") for word in (*SMALL, "steps=6", "measure_memory=false"))
    study = workplace / "small.yaml"
    lines = [f"  {k}: {v}" for k, v in base.items() if k != "device"]
    study.write_text(
        "experiment: training\nbase:\n" + "\n".join(lines) + "\n  optimiser.name: sgd\n"
        "grid:\n  - optimiser.learning_rate: [0.1, 1.0e+38]\n",
        encoding="utf-8",
    )
    words = ("steps=6", "measure_memory=false", "optimiser=sgd", "optimiser.learning_rate=0.1")
    broken_off(words, complete(*words))
    chosen = find(str(study))
    said = io.StringIO()
    plan = runner.plan(chosen, {}, device="cpu")
    shown = progress.display(Console(file=said, width=300), 2)
    summary = runner.run(plan, shown, engine=Here())
    assert summary.exit_code == 0
    assert dict(summary.counts) == {"COMPLETED": 1, "DIVERGED": 1}
    assert "DIVERGED learning_rate 1e+38" in said.getvalue()
    assert "Diverged: step 2: the loss is inf" in said.getvalue()
    runs = store().runs("study=small")
    assert list(runs["status"]) == ["COMPLETED", "DIVERGED"]
    assert store().run(int(runs["id"].iloc[0]))["info"]["resumed_at"] == 2
    assert not runner.plan(chosen, {}, device="cpu").missing


class Here:
    """Runs the trials of a study in this process, one after the other."""

    def imap(self, function: str, specs: engines.Specs) -> Iterator[engines.Event]:
        assert function == "experiments.runner.study:run_trial"
        for key, spec in specs.items():
            yield engines.Event(engines.Kind.STARTED, key)
            said: list[Any] = []
            value = runner.run_trial(spec, said.append)
            for report in said:
                yield engines.Event(engines.Kind.REPORTED, key, report)
            yield engines.Event(engines.Kind.RETURNED, key, value)
