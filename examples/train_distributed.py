"""An equilibrium model in several processes, by DistributedDataParallel or by FSDP2.

    torchrun --standalone --nproc-per-node 2 examples/train_distributed.py
    torchrun --standalone --nproc-per-node 2 examples/train_distributed.py --shard

The layer is wrapped as any other: the model as a whole, and for FSDP2 the layer too, never its
cell. Each process solves for its own samples, in as many evaluations as they need.
"""

import argparse
import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from experiments.data import load
from implicit import DEQ, Implicit
from solvers import Anderson


class Cell(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.A = nn.Linear(width, width, bias=False)

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.relu(self.A(z) + u)


def build(width: int = 40) -> nn.Sequential:
    layer = DEQ(Cell(width), solver=Anderson(window=5), gradient=Implicit(), reltol=1e-4)
    return nn.Sequential(nn.Linear(64, width), layer, nn.Linear(width, 10))


def train(steps: int, *, shard: bool, device: torch.device) -> None:
    torch.manual_seed(0)  # the same weights in all processes
    rank, world = dist.get_rank(), dist.get_world_size()
    model: nn.Module = build().to(device)
    layer = model[1]
    if shard:
        for part in (layer, model):
            fully_shard(part)
    else:
        model = DistributedDataParallel(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    batches = load("digits").batches("train", batch=32 * world)
    for step, (x, target) in zip(range(steps), batches, strict=False):
        mine = slice(rank, None, world)
        loss = nn.functional.cross_entropy(model(x[mine].to(device)), target[mine].to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        counts = torch.tensor(layer.solution.stats.evaluations, device=device)
        everyone = [torch.zeros_like(counts) for _ in range(world)]
        dist.all_gather(everyone, counts)
        if rank == 0 and (step % 10 == 0 or step == steps - 1):
            print(f"step {step}: loss {loss:.3f}, evaluations {[int(n) for n in everyone]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--shard", action="store_true", help="FSDP2 in place of DDP")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    train(options.steps, shard=options.shard, device=device)
    dist.barrier()  # none leaves while another still communicates
    dist.destroy_process_group()
