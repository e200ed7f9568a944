"""Weights, gradients and optimiser state sharded among processes (PyTorch's FSDP2, ``fully_shard``).

The same code runs on CPUs and GPUs, so two CPU processes test what GPUs do. Parameters become DTensors,
of which each process holds a part; a layer's weights are gathered when it is computed.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from realign.errors import RealignError

Tensor = torch.Tensor
M = TypeVar("M", bound=torch.nn.Module)


def is_first_process() -> bool:
    """Whether this is the first of several processes, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether a model or a part of it has been through :func:`shard`."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def shard(model: torch.nn.Module, device: torch.device) -> None:
    """Shard a model's weights among all processes, one decoder layer at a time, in place.

    Args:
        model: a transformers model without head, also inside a peft model; the same in every process.
            It must be called as a module from now on: its ``forward`` alone gathers nothing. Its weights
            may lie on the CPU: only this process's shard is moved to the device.
        device: where the model will run.

    Raises:
        RealignError: the architecture does not say what its layers are.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    parts = list(model.modules())
    names = {name for one in parts for name in getattr(one, "_no_split_modules", None) or ()}
    layers = [one for one in parts if type(one).__name__ in names]
    if not layers:
        raise RealignError(f"{type(model).__name__} does not name its layers: use ddp:N instead of fsdp:N")
    for one in (*layers, model):
        fully_shard(one, mesh=mesh)


def outline(model: M) -> M:
    """Return a copy of a model whose parameters have no memory yet; :func:`gather` fills it."""
    empty = {
        id(p): torch.nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, dict[int, Any](empty))


def gather(model: torch.nn.Module, into: torch.nn.Module) -> None:
    """Gather a sharded model's weights on the CPU of the first process, in an :func:`outline` of it.

    Every process must call it; only in the first is ``into`` whole afterwards.
    """
    state = {name: whole(value) for name, value in model.state_dict().items()}
    if dist.get_rank() == 0:
        into.load_state_dict(state, assign=True)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor's value, on the CPU if it was sharded; every process must call it."""
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    full: Tensor = cast(Any, tensor).detach().full_tensor()
    # (the other processes only take part)
    return full.cpu() if dist.get_rank() == 0 else full.new_empty(0)


def part(value: Tensor, parameter: Tensor) -> Tensor:
    """Return this process's shard of a whole value, sharded as a parameter of the same shape is."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of an optimiser as of one process; every process must call it."""
    held = optimizer.state_dict()
    state = {i: {k: whole(v) for k, v in one.items()} for i, one in held["state"].items()}
    return {**held, "state": state}


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load the state that :func:`optimizer_state` returned, also with another number of processes."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {i: {k: part(v, parameters[i]) for k, v in one.items()} for i, one in saved["state"].items()}
    optimizer.load_state_dict({**saved, "state": state})
