"""Solving inside the transforms of ``torch.func``: decisions on the host, steps on its tensors.

There a tensor may stand for many copies (``vmap``) or carry a derivative (``grad``, ``jvp``), and
no number can be read from it. ``outside`` leaves all transforms by the public way out of them, the
forward of a ``torch.autograd.Function``: it gets plain tensors, the copies as further samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

from solvers.evaluation import Evaluator, Linearisation
from solvers.judge import Bools, Concluded, Judge
from solvers.solution import ReturnCode, Stats

if TYPE_CHECKING:
    from solvers.loop import Settings

Product = Callable[[Tensor], tuple[Tensor]]
T = TypeVar("T")


class _Outside(torch.autograd.Function):
    """Calls a function with plain tensors (copies · rows, …); what it returns has no derivative."""

    @staticmethod
    def forward(call: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Call."""
        return call(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep nothing."""
        ctx.mark_non_differentiable(output)
        ctx.count = len(inputs)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Return that there is no derivative."""
        return (None,) * ctx.count

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        """Return that there is no derivative."""

    @staticmethod
    def vmap(
        info: Any, dims: Sequence[int | None], call: Callable[..., Tensor], *tensors: Tensor
    ) -> tuple[Tensor, int | None]:
        """Make the copies rows."""
        size = info.batch_size
        whole = [
            t.expand(size, *t.shape) if d is None else t.movedim(d, 0)
            for t, d in zip(tensors, dims[1:], strict=True)
        ]
        out = _apply(call, *(t.reshape(-1, *t.shape[2:]) for t in whole))
        if not out.dim():
            return out, None
        return out.reshape(size, -1, *out.shape[1:]), 0


def _apply(call: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    return cast(Tensor, _Outside.apply(call, *tensors))  # type: ignore[no-untyped-call]


def outside(call: Callable[..., T], *tensors: Tensor) -> T:
    """Return ``call(*tensors)``, called with plain tensors (copies · rows, …) and no transform."""
    found: list[T] = []

    def called(*plain: Tensor) -> Tensor:
        found.append(call(*plain))
        return torch.zeros(())

    _apply(called, *tensors)
    return found[-1]


class JudgeWithin(Judge):
    """A judge of points inside transforms: it is shown those of all copies as plain tensors."""

    def __init__(
        self,
        settings: Settings,
        z: Tensor,
        *,
        is_root: bool,
        scale: Tensor | None = None,
        last: bool = False,
    ) -> None:
        self._kind, self._scale_of = (settings, is_root, last), scale
        self._shown, self._point = False, z.detach()
        self._begin(z)

    def _begin(self, z: Tensor) -> None:
        settings, is_root, last = self._kind
        scale = () if self._scale_of is None else (self._scale_of,)

        def begin(z: Tensor, _: Tensor, *scale: Tensor) -> None:
            of, joint = scale[0] if scale else None, getattr(self, "joint", False)
            Judge.__init__(self, settings, z, is_root=is_root, scale=of, last=last)
            self.joint = joint

        outside(begin, z, self._point, *scale)

    def restart(self, z: Tensor) -> None:
        """Forget every verdict."""
        # A start that is one for all copies is shown as that of each.
        outside(lambda z, _: Judge.restart(self, z), z, self._point)

    def see(
        self,
        z: Tensor,
        fz: Tensor,
        residual: Tensor,
        evaluation: int,
        *,
        failed: Tensor | None = None,
        trial: Tensor | None = None,
    ) -> Tensor:
        """Note a point; return the residual norms (copies · rows,)."""
        flags = {k: t for k, t in (("failed", failed), ("trial", trial)) if t is not None}
        noted = super().see

        def see(z: Tensor, fz: Tensor, residual: Tensor, *found: Tensor) -> Tensor:
            return noted(z, fz, residual, evaluation, **dict(zip(flags, found, strict=True)))

        self._point = residual.detach()
        if not self._shown:  # how many copies there are, no start need tell
            self._shown = True
            self._begin(z)
        return outside(see, z, fz, residual, *flags.values())

    @property
    def tolerance(self) -> Tensor:
        """(rows,) the residual norms, in l2, that meet the tolerance at the last point's scale."""
        told: Callable[[Judge], Tensor] = Judge.tolerance.fget  # type: ignore[attr-defined]
        return _apply(lambda _: told(self), self._point)

    def decide(self) -> Bools | None:
        """Judge the points noted since the last time."""
        return outside(super().decide)

    def conclude(self, otherwise: ReturnCode) -> Concluded:
        """Return what is known of the samples of all copies."""
        return outside(lambda: Judge.conclude(self, otherwise))


class Functional(Linearisation):
    """Products with the Jacobian by ``torch.func``, which may be transformed further."""

    def __init__(self, z: Tensor, fz: Tensor, pull: Product, shape: torch.Size, stats: Stats):
        super().__init__(z, fz, shape, stats)
        self._pull = pull
        self._push: Product | None = None

    def vjp(self, u: Tensor) -> Tensor:
        """Return Jᵀu."""
        self.stats.vjps += 1
        return self._pull(u.reshape(self._fz.shape))[0].reshape(self.shape)

    def jvp(self, v: Tensor) -> Tensor:
        """Return Jv."""
        self.stats.jvps += 1
        if self._push is None:
            zero = torch.zeros_like(self._fz)
            _, self._push, *_ = torch.func.vjp(lambda u: self._pull(u)[0], zero)
        return self._push(v.reshape(self._z.shape))[0].reshape(self.shape)

    def jacobian(self) -> Tensor:
        """Return J as dense blocks (B, D, D), by D products with its transpose under vmap."""
        rows, dim = self.shape
        self.stats.vjps += dim
        units = torch.eye(dim, dtype=self._fz.dtype, device=self._fz.device)
        units = units[:, None, :].expand(dim, rows, dim).reshape(dim, *self._fz.shape)
        products: Tensor = torch.func.vmap(lambda u: self._pull(u)[0])(units)
        return products.reshape(dim, rows, dim).transpose(0, 1)

    def _any(self, x: Tensor) -> bool:
        return outside(lambda x: bool(x.any()), x)


class EvaluatorWithin(Evaluator):
    """An evaluator whose linearisations may be transformed, at no evaluation of their own."""

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z) and the residual, both (B, D), at the remaining samples."""
        if not self.keep_last:
            return super().__call__(z)

        def function(z: Tensor) -> tuple[Tensor, Tensor]:
            value = self._function(z, self.args)
            return value, self._g if self.is_root else value

        fz, pull, g = cast(Any, torch.func.vjp(function, z, has_aux=True))
        self._at = z, fz, pull
        self._count()
        return fz, g if self.is_root else fz - z

    def linearise(self, z: Tensor, shape: torch.Size) -> Linearisation:
        """Return the Jacobian products of f at the last point, for vectors of ``shape``."""
        return Functional(*self._at, shape, self.tally)
