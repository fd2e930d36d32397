"""The steps of a training, and all that happens between them."""

from __future__ import annotations

import contextlib
import math
import random
import time
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

import implicit
import solvers
from experiments import data
from experiments.runner.interrupts import Diverged, Terminated
from experiments.runner.recording import Recorder
from experiments.trainer import checkpoints, footprint, networks
from experiments.trainer.display import Display, Seen, display
from experiments.trainer.evaluation import Evaluated, Evaluation
from experiments.trainer.networks import Network, Pass, backward_work, certificate_work
from experiments.trainer.options import PRETRAIN, REGULARISATION, Rate, optimisers, schedules
from experiments.trainer.starts import Batches, Starts
from experiments.trainer.stopping import Deferred
from experiments.trainer.tally import Series, Stopwatch, Taken, Tally, light
from implicit import gradients, models
from implicit.models import Memory
from solvers.loop import Settings
from solvers.problem import FixedPointProblem, State

if TYPE_CHECKING:
    from experiments.training import TrainingConfig

__all__ = ["Trainer"]

WARM = 3  # steps before the bytes of one are counted


@dataclass(frozen=True)
class Batch:
    """What a step is taken on."""

    x: Tensor
    target: Tensor
    rows: Tensor | None
    memory: Memory
    begins: bool


class Trainer:
    """A training: everything that its config names, and how far it is.

    Parameters
    ----------
    config
        Complete and checked.
    recorder
        Where it is recorded.
    """

    def __init__(self, config: TrainingConfig, recorder: Recorder) -> None:
        self.config, self.recorder = config, recorder
        c = config
        torch.set_num_threads(c.threads)
        random.seed(c.seed)
        np.random.seed(c.seed)  # the global one, which models may use
        torch.manual_seed(c.seed)
        self.model = models.registry.build(c.model, "model")
        self.dtype = getattr(torch, c.dtype)
        self.modules = self.model.module().to(c.device, self.dtype)
        self.modules.train()
        self.dataset = data.load(self.model.data if c.data is None else c.data)
        gradient = gradients.registry.build(c.gradient, "gradient")
        auto = isinstance(c.reltol, str)
        error = (1e-2 if c.gradient_error is None else c.gradient_error) if auto else None
        self.network = Network(
            self.model,
            solvers.registry.build(c.solver, "solver"),
            gradient,
            Settings(
                c.abstol,
                cast(float, error if auto else c.reltol),
                c.norm,
                c.max_evaluations,
                None,
                c.fixed_budget,
            ),
            error=error,
            name=str(c.model["name"]),
        )
        self.parameters = [p for p in self.modules.parameters() if p.requires_grad]
        self.optimiser = optimisers.build(c.optimiser, "optimiser").on(self.parameters)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.rate = Rate(schedules.build(c.schedule, "schedule"), c.steps)
        self.pretrain = PRETRAIN.build(c.pretrain, "pretrain")
        self.regularise = (
            None
            if c.regularisation is None
            else REGULARISATION.build(c.regularisation, "regularisation").made(c.seed)
        )
        segments = self.segments = bool(c.segments)
        samples = len(self.dataset.train[0])
        self.starts = Starts(self.network, samples, warm=c.warm_start, segments=segments)
        self.evaluation = Evaluation(
            self.model,
            self.network,
            self.modules,
            self.dataset,
            c.batch,
            c.eval_batches,
            segments,
            self._moved,
            self._precision,
            c.device,
        )
        self.series, self.tally = Series(recorder), Tally()
        self.watch = Stopwatch(c.device)
        self.steps = 0
        self._plain = {k: getattr(c, k) for k in c.__dataclass_fields__}
        self.checkpoint = checkpoints.of_config(self._plain)
        self._code = checkpoints.code(self._plain)
        self._tested: float | None = None
        self._shown: dict[str, float] = {}
        self._begun = (0, time.monotonic())

    # -- the whole --------------------------------------------------------------------------------

    def run(self) -> dict[str, float]:
        """Train to the end and return the result.

        Raises
        ------
        Diverged
            At the first loss or gradient that is not finite.
        KeyboardInterrupt, Terminated
            Once the state is saved.
        """
        self.recorder.info["checkpoint"] = str(self.checkpoint.path.absolute())
        if self.recorder.resume != "no":
            self._resume()
        self._begun = (self.steps, time.monotonic())
        picture = display(self.recorder.told)
        try:
            with warnings.catch_warnings():
                # Recorded with the adjoint, and counted.
                warnings.simplefilter("ignore", implicit.AdjointWarning)
                self._train(picture)
                result = self._finish(picture)
        except Diverged as diverged:
            self.recorder.info["diverged"] = str(diverged)
            self.checkpoint.remove()
            print(f"DIVERGED: {diverged}")
            raise
        finally:
            picture.close()
        if self.config.keep_checkpoint:
            self.save()
        else:
            self.checkpoint.remove()
        return result

    def _train(self, picture: Display) -> None:
        c = self.config
        if self.steps == 0:
            self.series.add(self.tally.totals(), 0)
            if c.evaluate_every:
                self._evaluate()
        batches = Batches(self.dataset, c.batch, c.seed, segments=self.segments, first=self.steps)
        with Deferred() as signals:
            for x, target, rows, begins in batches:
                if self.steps >= c.steps or self._reached():
                    break
                if begins:
                    self.starts.begin()
                batch = Batch(*self._moved(x, target), rows, self.starts.memory, begins)
                self._step(batch)
                if c.evaluate_every and self.steps % c.evaluate_every == 0:
                    self._evaluate()
                if c.checkpoint_every and self.steps % c.checkpoint_every == 0:
                    self.save()
                picture.show(self._seen)
                if signals.came is not None:
                    self._save_and_say()
                    signals.deliver()
        self._read()
        picture.show(self._seen, last=True)

    def _finish(self, picture: Display) -> dict[str, float]:
        """Evaluate at the end, and return the result."""
        c, state = self.config, None
        if c.checkpoint_every or self.steps:
            state = self.state()  # what an interrupt meanwhile saves
        try:
            self.series.add(self.tally.totals(), self.steps)
            found = self.evaluation("test", **self._solved())
            self.series.add(found.series(), self.steps)
            for budget in c.budgets:
                at = self.evaluation("test", max_evaluations=budget, fixed_budget=True)
                self.series.add(at.named("budget"), budget)
        except (KeyboardInterrupt, Terminated):
            if state is not None:
                self.checkpoint.save(state, self._plain, self._code)
            raise
        cell = sum(p.numel() for p in self.model.cell.parameters())
        result = {
            **{k.removeprefix("test."): v for k, v in found.named("test").items()},
            **self.tally.result(),
            "test_evaluations": found.evaluations,
            "inference_seconds": found.seconds,
            "parameters": float(sum(p.numel() for p in self.modules.parameters())),
            "cell_parameters": float(cell),
        }
        if self.dataset.entropy_rate is not None:
            result["entropy_rate"] = self.dataset.entropy_rate
        if c.target_loss is not None:
            seconds, work = self.tally.reached or (math.inf, math.inf)
            result |= {"seconds_to_target": seconds, "work_to_target": work}
        return result

    # -- a step -----------------------------------------------------------------------------------

    def _step(self, batch: Batch) -> None:
        c, step = self.config, self.steps
        recorded = step % c.record_every == 0 or step == c.steps - 1
        if recorded:
            self._read()
            self.series.add(self.tally.totals(), step)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.rate(step)
        first = self.watch.now()
        self.optimiser.zero_grad(set_to_none=True)
        done, loss, penalty = self._forward(batch, step)
        whole = loss if penalty is None else loss + penalty
        norm = None
        broken = self._cheap and not math.isfinite(float(whole.detach()))
        if not broken:
            whole.backward()
            gradients_ = [p.grad for p in self.parameters if p.grad is not None]
            norm = get_total_norm(gradients_)
            if c.clip is not None:
                clip_grads_with_norm_(self.parameters, c.clip, norm)
            self.optimiser.step()
        last = self.watch.now()
        products = 0 if broken else backward_work(done)
        extra = certificate_work(done.solution)
        if penalty is not None and self.regularise is not None:
            extra += networks.regularisation_work(self.regularise.samples)
        adjoint = None if done.solution is None else done.solution.adjoint
        if recorded:
            self._record_solves(done, step)
        self.tally.add(
            Taken(
                number=step,
                loss=loss.detach(),
                penalty=None if self.regularise is None else _number(penalty, loss),
                norm=norm,
                forward=light(done.solution),
                adjoint=light(adjoint),
                evaluations=done.work,
                products=products,
                work=done.work + products + extra,
                moments=(first, last),
            )
        )
        if recorded or self._cheap:
            values = self._read()
            if recorded:
                values["train.learning_rate"] = self.optimiser.param_groups[0]["lr"]
                values |= self._radius(done)
                self.series.add(values, step)
        self.starts.keep(done.z, done.args, batch.rows)
        del done, loss, penalty, whole
        self.steps += 1
        if c.measure_memory and self.tally.peak_bytes is None and self._warm:
            self._weigh(batch)

    @property
    def _cheap(self) -> bool:
        """Whether reading a number waits for nothing."""
        return not self.config.device.startswith("cuda")

    @property
    def _warm(self) -> bool:
        """Whether the bytes of a step can be counted: libraries have what they keep."""
        return self.steps >= min(self.config.steps, self.pretrain.steps + WARM)

    def _forward(
        self, batch: Batch, step: int, *, most: bool = False
    ) -> tuple[Pass, Tensor, Tensor | None]:
        """Return the pass, the loss, and the penalty if there is one; ``most``: if there may be."""
        shallow = self.pretrain.depth if step < self.pretrain.steps else None
        regularise = None if shallow is not None else self.regularise
        wanted = regularise is not None and (most or regularise.weight_at(step) > 0)
        with self._precision():
            args = self.model.args(batch.x, batch.memory)
            z0 = None if shallow is not None else self.starts.start(args, batch.rows)
            done = self.network.train(args, z0=z0, shallow=shallow, watched=wanted)
            loss = self.model.loss(self.model.readout(done.z), batch.target)
            penalty = None
            if wanted and regularise is not None and done.problem is not None:
                at = 0 if most else step
                penalty = regularise(done.problem, done.z, step=at)
        return done, loss, penalty

    def _read(self) -> dict[str, float]:
        """Read what waits on the device."""
        values = self.tally.read(self.watch)
        self._shown = values or self._shown
        return values

    def _record_solves(self, done: Pass, step: int) -> None:
        if done.solution is None:
            return
        self.recorder.solve(done.solution, outer_step=step)
        if done.solution.adjoint is not None:
            self.recorder.solve(done.solution.adjoint, outer_step=step)

    def _radius(self, done: Pass) -> dict[str, float]:
        """Return the spectral radius at the equilibrium, the mean over the samples, if wanted."""
        if not self.config.measure_radius or done.solution is None:
            return {}
        args = tuple(a.detach() for a in done.args)
        z = networks.detached(done.z)
        with self._precision():
            problem = FixedPointProblem(self.model.cell, z, args)
            radius = implicit.spectral_radius(problem, z=z)
        return {"train.radius": float(radius.mean())}

    def _weigh(self, batch: Batch) -> None:
        """Count the bytes of a step like the last one, and of the layer in it."""

        def loss() -> Tensor:
            _, loss, penalty = self._forward(batch, self.steps, most=True)
            return loss if penalty is None else loss + penalty

        device = self.config.device
        self.tally.peak_bytes = footprint.step_bytes(loss, self.modules, self.network, device)
        with torch.no_grad(), self._precision():
            args = self.model.args(batch.x, batch.memory)
        self.tally.layer_peak_bytes = footprint.layer_bytes(
            self.model,
            self.network,
            args,
            batch.target,
            self._precision,
            modules=self.modules,
            device=device,
        )
        self.series.add({"train.peak_bytes": float(self.tally.peak_bytes)}, self.steps)

    def _moved(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        device = self.config.device
        return (
            x.to(device, self.dtype if x.is_floating_point() else x.dtype),
            target.to(device, self.dtype if target.is_floating_point() else target.dtype),
        )

    def _precision(self) -> AbstractContextManager[Any]:
        kind = self.config.device.partition(":")[0]
        if self.config.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(kind, torch.bfloat16)

    # -- between the steps ------------------------------------------------------------------------

    def _solved(self) -> dict[str, Any]:
        return {
            "max_evaluations": self.config.eval_max_evaluations,
            "reltol": self.config.eval_reltol,
        }

    def _evaluate(self) -> Evaluated:
        self._read()
        split = "test" if self.dataset.valid is None else "valid"
        found = self.evaluation(split, **self._solved())  # type: ignore[arg-type]
        self.series.add(self.tally.totals(), self.steps)
        self.series.add(found.series(), self.steps)
        self.rate.heard(found.loss)
        self._tested = found.loss
        target = self.config.target_loss
        if target is not None and found.loss <= target and not self.tally.reached:
            totals = self.tally.totals()
            self.tally.reached = [totals["train.seconds"], totals["train.work"]]
        return found

    def _reached(self) -> bool:
        """Whether the loss that was aimed at is reached."""
        return bool(self.tally.reached)

    def _seen(self) -> Seen:
        first, began = self._begun
        done = self.steps - first
        left = (
            (time.monotonic() - began) / done * (self.config.steps - self.steps) if done else None
        )
        shown = self._shown
        return Seen(
            self.steps,
            self.config.steps,
            shown.get("train.loss"),
            shown.get("train.evaluations"),
            shown.get("train.products"),
            shown.get("train.converged"),
            self.tally.peak_bytes,
            self._tested,
            left,
        )

    # -- checkpoints ------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that the rest of the training depends on."""
        self._read()
        return {
            "uuid": self.recorder.uuid,
            "steps": self.steps,
            "modules": self.modules.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rate": self.rate.state(),
            "network": self.network.state(),
            "starts": self.starts.state(),
            "tally": self.tally.state(),
            "series": {name: list(map(list, p)) for name, p in self.series.points.items()},
            "tested": self._tested,
            "random": checkpoints.random_state(self.config.device),
        }

    def save(self) -> None:
        """Write a checkpoint."""
        self.checkpoint.save(self.state(), self._plain, self._code)

    def _save_and_say(self) -> None:
        self.save()
        uuid = self.recorder.uuid
        name = self.recorder.run_id or (uuid and uuid[:8])
        how = f"`deq resume {name}`" if name else "`deq resume`"
        print(f"saved after step {self.steps}: {how} goes on from there")

    def _resume(self) -> None:
        """Go on from the checkpoint if there is one that fits; else say why not."""
        must = self.recorder.resume != "possible"
        if not must and not self.checkpoint.exists():
            return
        try:
            state = self.checkpoint.load()
            if self.recorder.resume != "changed":
                checkpoints.refuse_changes(state, self._plain)
        except checkpoints.CheckpointError as error:
            if must:
                raise
            print(f"beginning anew: {error}")
            return
        self.restore(state)
        self.recorder.info["resumed_from"] = state["uuid"]
        self.recorder.info["resumed_at"] = self.steps
        print(f"resumed after step {self.steps} of run {(state['uuid'] or 'nobody')[:8]}")

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was."""
        self.modules.load_state_dict(state["modules"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rate.restore(state["rate"])
        self.network.restore(_on(state["network"], self.config.device))
        self.starts.restore(state["starts"], self.config.device)
        self.tally = Tally(**state["tally"])
        self.series.replay(state["series"])
        self.steps, self._tested = state["steps"], state["tested"]
        checkpoints.restore_random(state["random"], self.config.device)


def _number(penalty: Tensor | None, like: Tensor) -> Tensor:
    return like.new_zeros(()) if penalty is None else penalty.detach()


def _on(state: Mapping[str, Any], device: str) -> dict[str, Any]:
    adjoint: State | None = state["adjoint"]
    moved = adjoint.to(device) if isinstance(adjoint, Tensor) else adjoint
    return {**state, "adjoint": moved}
