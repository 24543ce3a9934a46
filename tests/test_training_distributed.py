"""Two processes on one machine (gloo) take the gradient step that one process takes."""

from __future__ import annotations

import socket
from pathlib import Path

import torch
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from dinogrl.losses import Objective
from dinogrl.models.build import build_model
from dinogrl.recipes import load_recipe
from dinogrl.runtime import seed_everything
from tiny_recipe import TINY

IDENTITY = torch.tensor([0, 1, 0, 1, 2, 3, 2, 3])  # first the four clips of one process, then those of the other


def gradients(rows: slice, wrap: bool) -> dict[str, torch.Tensor]:
    recipe = load_recipe("demo_dinogrl", TINY)
    seed_everything(5)
    network = build_model(recipe, 4)
    model = DistributedDataParallel(network, find_unused_parameters=True) if wrap else network
    model.eval()  # batch statistics differ by nature where each process sees its own half
    assert network.gait is not None
    network.training = network.gait.training = True  # logits and reconstructions are made in training only
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(8, 2, 3, 64, 32, generator=generator)[rows]
    modality = (torch.arange(8) // 2 % 2)[rows]
    output = model(frames, modality)
    Objective(recipe.objective)(output, IDENTITY[rows])["total"].backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def one_of_two(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = gradients(slice(4 * rank, 4 * rank + 4), wrap=True)
    torch.save(found, Path(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(one_of_two, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = gradients(slice(None), wrap=False)
    assert alone.keys() == first.keys() == second.keys()
    for name, gradient in alone.items():
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        scale = float(gradient.abs().max()) + 1e-6
        assert float((first[name] - gradient).abs().max()) < 2e-3 * scale + 1e-5, name
