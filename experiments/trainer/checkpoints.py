"""Checkpoints: the whole state of a training in one file, there whole or not at all.

A file is written beside the last one, brought to the disk, and put in its place: whoever is killed
meanwhile leaves the last one. It holds tensors and plain data alone, so that reading it executes
nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.runner import config as configs
from experiments.runner import sources
from solvers.options import OptionError

__all__ = ["FOLDER", "Checkpoint", "CheckpointError", "of_config", "random_state", "restore_random"]

FOLDER = Path("results") / "checkpoints"
FORMAT = 1


class CheckpointError(OptionError):
    """A checkpoint that cannot be used; the message says why, and what can be done."""


def of_config(config: Mapping[str, Any], folder: Path = FOLDER) -> Checkpoint:
    """Return the checkpoint of a complete config."""
    return Checkpoint(folder / configs.fingerprint(config) / "last.pt")


class Checkpoint:
    """A file with the state of a training, or the place for one.

    Attributes
    ----------
    path
        Of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether there is one."""
        return self.path.is_file()

    def save(
        self, state: Mapping[str, Any], config: Mapping[str, Any], made_by: Mapping[str, str]
    ) -> None:
        """Write the state in the place of the last one.

        Parameters
        ----------
        state
            Tensors and plain data.
        config, made_by
            Of the training, and what :func:`code` gave when it began.

        Raises
        ------
        OSError
            If the disk does not take it; the last one is as it was.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        whole = {"format": FORMAT, "config": json.dumps(config), "code": dict(made_by), **state}
        try:
            with fresh.open("wb") as file:
                torch.save(whole, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        finally:
            fresh.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # of file systems that cannot
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def load(self) -> dict[str, Any]:
        """Return the state, with tensors on the CPU.

        Raises
        ------
        CheckpointError
            If there is none, it is not whole, or another version wrote it.
        """
        if not self.exists():
            raise CheckpointError(f"there is no checkpoint '{self.path}'")
        try:
            with zipfile.ZipFile(self.path) as file:
                damaged = file.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"its part '{damaged}' is damaged")
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # of a damaged file torch raises many things
            raise CheckpointError(
                f"the checkpoint '{self.path}' is truncated or damaged, or is none"
                f" ({type(error).__name__}: {str(error).partition(chr(10))[0]}); remove it to begin"
                " anew"
            ) from None
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise CheckpointError(
                f"the checkpoint '{self.path}' was written by another version of deq-lab; remove it"
                " to begin anew"
            )
        return state

    def remove(self) -> None:
        """Remove the file, and its folder if there is nothing else in it."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


def code(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what a resumed training should be computed by, as it is now: names and digests."""
    ours = hashlib.sha256()
    for place in sources.OURS:
        if Path(place).name in ("solvers", "implicit"):
            for file in sorted(Path(place).rglob("*.py")):
                ours.update(file.read_bytes())
    trainer = Path(__file__).parent
    for file in [trainer.with_name("training.py"), *sorted(trainer.glob("*.py"))]:
        ours.update(file.read_bytes())
    own = {s.module: s.md5 for s in sources.used(sources.modules(config))}
    return {
        "deq-lab": ours.hexdigest(),
        "torch": str(torch.__version__),
        "machine": f"{platform.machine()} {platform.system()}",
        **own,
    }


def refuse_changes(state: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that other code has written.

    Raises
    ------
    CheckpointError
        With what is another one now.
    """
    then, now = state["code"], code(config)
    changed = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    if changed:
        raise CheckpointError(
            f"the code has changed since the checkpoint was written ({', '.join(changed)}), so that"
            " what follows would not be what would have followed"
        )


def random_state(device: str) -> dict[str, Any]:
    """Return the state of every source of random numbers, as plain data and tensors."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()  # the global one
    version, numbers, following = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [str(kind), np.asarray(keys).tolist(), int(place), int(has_gauss), float(gauss)],
        "python": [version, list(numbers), following],
    }
    if device.startswith("cuda"):
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random(state: Mapping[str, Any], device: str) -> None:
    """Put every source of random numbers where it was."""
    torch.set_rng_state(state["torch"])
    kind, keys, place, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), place, has_gauss, gauss))
    version, numbers, following = state["python"]
    random.setstate((version, tuple(numbers), following))
    if "cuda" in state and device.startswith("cuda"):
        torch.cuda.set_rng_state(state["cuda"], device)
