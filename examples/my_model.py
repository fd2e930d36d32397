"""An equilibrium model of your own: ``python examples/my_model.py`` trains it on digits.

Compare the solvers on it: ``deq study compare with model.name=examples.my_model:build``.
"""

import torch
from torch import Tensor, nn

from implicit.models import Model


class Cell(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.A = nn.Linear(width, width, bias=False)

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.relu(self.A(z) + u)


def build(width: int = 40, inputs: int = 64, classes: int = 10) -> Model:
    """My equilibrium model: z = relu(A z + U x + b)."""
    inject, readout = nn.Linear(inputs, width), nn.Linear(width, classes)
    return Model(inject, Cell(width), readout, nn.functional.cross_entropy, data="digits")


def train(steps: int = 100) -> None:
    from experiments.data import load
    from implicit import DEQ, Implicit
    from solvers import Anderson

    model, data = build(), load("digits")
    layer = DEQ(model.cell, solver=Anderson(window=5), gradient=Implicit(), reltol=1e-4)
    optimiser = torch.optim.Adam(model.module().parameters(), lr=1e-2)
    for step, (x, target) in zip(range(steps), data.batches("train", batch=32), strict=False):
        loss = model.loss(model.readout(layer(*model.args(x))), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 50 == 0 and layer.solution and layer.adjoint_solution:
            forward, backward = layer.solution.stats, layer.adjoint_solution.stats
            print(
                f"step {step}: loss {loss:.3f}, {forward.evaluations} evaluations of the cell,"
                f" {backward.vjps} products backward"
            )
    x, target = data.test
    with torch.no_grad():
        right = model.readout(layer(*model.args(x))).argmax(1) == target
    print(f"{right.float().mean():.1%} of the test digits are right")


if __name__ == "__main__":
    torch.manual_seed(0)
    train()
