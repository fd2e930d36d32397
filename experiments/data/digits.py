"""Handwritten digits, 8×8 pixels, as scikit-learn brings them."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from experiments.data.dataset import DataSet

__all__ = ["build"]


def build() -> DataSet:
    """Handwritten digits, 8×8 pixels in [0, 1], 10 classes; every fifth image is for testing."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32)  # sixteenths, so exact
    target = torch.tensor(labels, dtype=torch.int64)
    test = torch.arange(len(x)) % 5 == 4
    return DataSet(
        name="digits",
        train=(x[~test], target[~test]),
        test=(x[test], target[test]),
        meta={"inputs": x.shape[1], "classes": 10, "channels": 1, "size": 8},
        provenance=(
            f"{len(x)} handwritten digits of 8×8 pixels from scikit-learn (UCI, optical recognition"
            " of handwritten digits), every fifth one for testing."
        ),
    )


build.reference = (  # type: ignore[attr-defined]  # printed by `deq data`
    "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998"
)
