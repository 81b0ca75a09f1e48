"""Muon: momentum whose update has all its singular values near one.

Keller Jordan and others, "Muon: An optimizer for hidden layers in neural networks" (2024); scaled as in Liu and others,
"Muon is scalable for LLM training" (2025), so that AdamW's learning rate and weight decay hold. torch.optim.Muon takes
matrices only; here a convolution's (out, in, h, w) counts as the matrix (out, in·h·w).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch

MOMENTUM = 0.95
STEPS = 5
A, B, C = 3.4445, -4.7750, 2.0315  # Newton-Schulz coefficients of the authors


def inverse_roots(grams: torch.Tensor) -> torch.Tensor:
    """(n, r, r) symmetric with eigenvalues 0..1 -> what brings the singular values of the matrices X of X·Xᵀ near one.

    Newton and Schulz's iteration multiplies X by a polynomial of its Gram matrix, so all its steps are made on that.
    """
    one = torch.eye(grams.shape[-1], device=grams.device)
    whole = one.expand_as(grams)
    for _ in range(STEPS):
        factor = A * one + B * grams + C * grams @ grams
        whole, grams = factor @ whole, factor @ grams @ factor
    return whole


class Muon(torch.optim.Optimizer):
    """For weights of two and more dimensions within a network; its ends, biases and embeddings want AdamW."""

    def __init__(self, params: Iterable[torch.Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            alike: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                update = weight.grad.lerp(momentum, MOMENTUM).flatten(1)
                alike[min(update.shape)].append((weight, update / (update.norm() + 1e-7)))
            for pairs in alike.values():
                grams = [u @ u.T if u.shape[0] <= u.shape[1] else u.T @ u for _, u in pairs]
                for (weight, u), root in zip(pairs, inverse_roots(torch.stack(grams)), strict=True):
                    update = root @ u if u.shape[0] <= u.shape[1] else u @ root
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.view_as(weight), alpha=-group["lr"] * 0.2 * max(u.shape) ** 0.5)
