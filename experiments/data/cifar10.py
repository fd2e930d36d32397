"""CIFAR-10 from its Python files; the images stay bytes until they are in a batch."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from experiments.data.dataset import DataSet, Pair, Transform
from experiments.data.files import check_md5, find
from solvers.options import OptionError

__all__ = ["MD5", "build", "crop_and_flip", "read"]

TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST, META = "test_batch", "batches.meta"
CHANNELS, SIZE, CLASSES = 3, 32, 10
MARGIN = 4  # black pixels around an image before it is cropped
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}


def build(
    root: str = "", normalise: bool = True, augment: bool = False, verify: bool = True
) -> DataSet:
    """CIFAR-10, 32×32 pixels in colour, 10 classes, from ``root``: cifar-10-batches-py.

    50,000 images for training, 10,000 for testing, in a row as the files have them: red, green,
    blue, each by rows. Kept as bytes; a batch is float32.

    Parameters
    ----------
    root
        The directory with data_batch_1 … data_batch_5, test_batch and batches.meta, or with
        cifar-10-batches-py/ of them.
    normalise
        Whether each channel has mean 0 and deviation 1 over the training images. Otherwise pixels
        are in [0, 1].
    augment
        Whether a training image is cropped at random from itself in a margin of four black pixels,
        and mirrored every other time; by the seed and the number of its batch.
    verify
        Whether to refuse files whose checksums are not the published ones.

    Raises
    ------
    OptionError
        If a file is missing, truncated, altered, or holds anything but numbers and text.
    """
    files = (*TRAIN, TEST, META)
    place = find(root, "cifar10", "cifar-10-batches-py", files)
    if verify:
        for file in files:
            check_md5(place / file, MD5[file])
    parts = [_images(place / file) for file in TRAIN]
    train = torch.cat([x for x, _ in parts]), torch.cat([labels for _, labels in parts])
    test = _images(place / TEST)
    checked = "as published" if verify else "not compared with the published sums"
    return DataSet(
        name="cifar10",
        train=train,
        test=test,
        meta={
            "inputs": CHANNELS * SIZE * SIZE,
            "classes": CLASSES,
            "channels": CHANNELS,
            "size": SIZE,
        },
        provenance=(
            f"CIFAR-10: {len(train[0]):,} images for training and {len(test[0]):,} for testing,"
            f" {checked}."
        ),
        words=_names(place / META),
        transform=_transform(train[0], normalise, augment),
    )


build.requires = frozenset({"root"})  # type: ignore[attr-defined]  # printed by `deq data`
build.reference = (  # type: ignore[attr-defined]  # printed by `deq data`
    "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
)


class _Plain(pickle.Unpickler):
    """Reads numbers, text, lists, dicts and arrays: a pickle that calls anything is refused."""

    _allowed: Mapping[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        # What an array is made by, as earlier and later versions of NumPy name it.
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}") from None


def read(path: Path) -> dict[str, Any]:
    """Return the dictionary in a file of pickled numbers and text; nothing in it is run.

    Raises
    ------
    OptionError
        If the file is truncated, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            found = _Plain(file, encoding="bytes").load()
        if not isinstance(found, dict):
            raise pickle.UnpicklingError(f"it holds a {type(found).__name__}, no dictionary")
    except Exception as error:  # bytes that are no pickle fail in any way
        reason = f"{type(error).__name__}: {error}"
        raise OptionError(
            f"root: '{path}' cannot be read ({reason}): it is truncated or altered, so fetch it"
            " again"
        ) from None
    return {k.decode() if isinstance(k, bytes) else str(k): v for k, v in found.items()}


def _images(path: Path) -> Pair:
    content = read(path)
    data, labels = content.get("data"), content.get("labels")
    labels = labels if isinstance(labels, list) else []
    shape = (len(labels), CHANNELS * SIZE * SIZE)
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape == shape):
        kind = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else "nothing"
        raise OptionError(
            f"root: '{path}' has {kind} as data and {shape[0]} labels; expected bytes (N,"
            f" {shape[1]}) and N labels"
        )
    if not all(isinstance(label, int) and 0 <= label < CLASSES for label in labels):
        raise OptionError(f"root: '{path}' has labels that are not whole numbers in 0 … 9")
    return torch.from_numpy(data.copy()), torch.tensor(labels, dtype=torch.int64)


def _names(path: Path) -> list[str]:
    names = read(path).get("label_names")
    if not isinstance(names, list) or len(names) != CLASSES:
        raise OptionError(f"root: '{path}' has no label_names of {CLASSES} classes")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _transform(images: Tensor, normalise: bool, augment: bool) -> Transform:
    mean, deviation = torch.zeros(1, dtype=torch.float32), torch.ones(1, dtype=torch.float32)
    if normalise:
        mean, deviation = _moments(images)

    def transform(x: Tensor, target: Tensor, generator: torch.Generator | None) -> Pair:
        if augment and generator is not None:
            x = crop_and_flip(x, generator)
        pixels = x.unflatten(1, (CHANNELS, -1)).float() / 255
        return ((pixels - mean[:, None]) / deviation[:, None]).flatten(1), target

    return transform


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (3,) of each channel in [0, 1], summed as whole numbers."""
    total = torch.zeros(CHANNELS, dtype=torch.int64)
    squares = torch.zeros(CHANNELS, dtype=torch.int64)
    for part in images.split(1000):
        pixels = part.unflatten(1, (CHANNELS, -1)).long()
        total += pixels.sum((0, 2))
        squares += pixels.square().sum((0, 2))
    count = len(images) * SIZE * SIZE * 255
    mean = total.double() / count
    variance = squares.double() / (count * 255) - mean.square()
    return mean.float(), variance.clamp(min=255**-2).sqrt().float()  # of an even colour: one step


def crop_and_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images (B, 3·32·32), each moved by up to four pixels, half of them mirrored."""
    rows = len(x)
    images = pad(x.reshape(rows, CHANNELS, SIZE, SIZE), (MARGIN,) * 4)
    down, right = torch.randint(0, 2 * MARGIN + 1, (2, rows), generator=generator)
    mirrored = torch.randint(0, 2, (rows,), generator=generator, dtype=torch.bool)
    span = torch.arange(SIZE)
    columns = torch.where(mirrored[:, None], span.flip(0), span) + right[:, None]
    return images[
        torch.arange(rows)[:, None, None, None],
        torch.arange(CHANNELS)[:, None, None],
        (span + down[:, None])[:, None, :, None],
        columns[:, None, None, :],
    ].flatten(1)
