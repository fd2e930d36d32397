"""The Universal Transformer (Dehghani et al., 2019): one block, evaluated a fixed number of times.

It is the network whose limit is the DEQ-Transformer: the cell is the same
(:mod:`implicit.models.transformer`), with the input injected at each depth, and so are the
parameters. Left out are the embedding of the depth ("time step"), for then the map would be another
one at each depth, and the halting of single positions (ACT), in which the depth depends on data.
The published model adds the embedding of the input once, at the start; without that of the depth,
what is computed would forget it.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from implicit.models import Model, transformer
from implicit.models.transformer.cell import Norm

__all__ = ["build"]


def build(
    *,
    depth: Annotated[int, Field(ge=1)] = 16,
    vocabulary: Annotated[int, Field(ge=2)] | None = None,
    length: Annotated[int, Field(ge=1)] | None = None,
    width: Annotated[int, Field(ge=2)] = 32,
    heads: Annotated[int, Field(ge=1)] = 2,
    inner: Annotated[int, Field(ge=1)] = 128,
    gain: Annotated[float, Field(ge=0)] = 0.5,
    injection: Annotated[float, Field(ge=0)] = 3.0,
    norm: Norm = "post",
    memory: Annotated[int, Field(ge=0)] = 0,
    weight_norm: bool = False,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    embedding_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    tied: bool = False,
) -> Model:
    """Universal Transformer: the block of ``transformer``, evaluated ``depth`` times from zero.

    Of the same seed and options, its parameters are those of ``transformer``. Memory is that of the
    last depth, as of an equilibrium, for all depths.

    Parameters
    ----------
    depth
        Number of evaluations.
    vocabulary, length, width, heads, inner, gain, injection
        As of ``transformer``.
    norm, memory, weight_norm, dropout, embedding_dropout, tied
        As of ``transformer``.

    Raises
    ------
    OptionError
        If ``heads`` does not divide ``width``.
    """
    model = transformer.build(
        vocabulary=vocabulary,
        length=length,
        width=width,
        heads=heads,
        inner=inner,
        gain=gain,
        injection=injection,
        norm=norm,
        memory=memory,
        weight_norm=weight_norm,
        dropout=dropout,
        embedding_dropout=embedding_dropout,
        tied=tied,
    )
    return dataclasses.replace(model, depth=depth)


build.reference = (  # type: ignore[attr-defined]  # printed by `deq models`
    "Dehghani et al., Universal Transformers, ICLR 2019 (arXiv:1807.03819); as a network that"
    " shares its weights: Bai, Kolter and Koltun, NeurIPS 2019 (arXiv:1909.01377)"
)
