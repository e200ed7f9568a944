"""AdamW for adapters in low precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class MasterAdamW(torch.optim.AdamW):
    """AdamW that keeps float32 copies of low-precision parameters and steps those.

    LoRA in float32 over a bfloat16 model doubles the time of a step on a CPU (every product is done in
    float32 beside the bfloat16 one); LoRA in bfloat16 alone would round small updates away.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> None:
        """``parameters`` are those of the model; the optimiser itself holds their float32 copies."""
        self.shadowed = [p for p in parameters if p.requires_grad]
        super().__init__(
            [p.detach().float().clone().requires_grad_() for p in self.shadowed], lr=lr, weight_decay=0.0
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's state with the float32 copies, so that a run resumes exactly."""
        copies = [p.detach().clone() for p in self.param_groups[0]["params"]]
        return {**super().state_dict(), "copies": copies}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state and the float32 copies."""
        state = dict(state_dict)
        copies = state.pop("copies")
        super().load_state_dict(state)
        with torch.no_grad():
            for master, copy in zip(self.param_groups[0]["params"], copies, strict=True):
                master.copy_(copy)

    def step(self, closure: Any = None) -> Any:
        """Step the float32 copies with the model's gradients, then round them into the model."""
        masters = self.param_groups[0]["params"]
        for master, parameter in zip(masters, self.shadowed, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
        result = super().step(closure)
        with torch.no_grad():
            for master, parameter in zip(masters, self.shadowed, strict=True):
                parameter.copy_(master)
        return result
