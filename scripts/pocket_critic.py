"""A small network that tells painted latents from the denoiser's: what a regression leaves vague must be decided.

A denoiser that only regresses paints the mean of what it is unsure of: half a lamp, milk instead of snow. The critic sees
source, answer, condition and the noise that places flakes and lights, patch by patch, and is trained beside the denoiser
(hinge loss, spectral norm on all but the scores: Miyato et al., ICLR 2018; conditional patches as in Isola et al., CVPR
2017). It is not exported.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pocket_model import LATENT_CHANNELS
from pocket_pairs import SHARES, Pair
from pocket_render import NOISE_CHANNELS
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

NAMES = list(SHARES)
EMBEDDED = 16  # planes that say the condition
RATE = 1e-3
WARM_UP = 150  # steps in which it only learns
SAY = 0.35  # norm of its gradient on the answer, as a share of the regression's


class Critic(nn.Module):
    """Scores of patches about 24 and 56 px wide: high where an answer looks painted by the renderer."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.kinds = nn.Embedding(len(NAMES), EMBEDDED)
        seen = 2 * LATENT_CHANNELS + NOISE_CHANNELS + EMBEDDED + 1
        self.near = spectral_norm(nn.Conv2d(seen, width, 4, 2, 1))
        self.far = spectral_norm(nn.Conv2d(width, 2 * width, 4, 2, 1))
        self.wide = spectral_norm(nn.Conv2d(2 * width, 2 * width, 3, 1, 1))
        self.scores = nn.ModuleList(nn.Conv2d(n, 1, 3, 1, 1) for n in (width, 2 * width))

    def forward(
        self,
        answer: torch.Tensor,
        source: torch.Tensor,
        noise: torch.Tensor,
        kind: torch.Tensor,
        severity: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 16, h, w) answer and source, both scaled; (B, 2, h, w) noise; (B,) index in NAMES and severity 0..1."""
        said = torch.cat((self.kinds(kind), severity[:, None]), 1)[:, :, None, None]
        # What was changed is a small part of what there is.
        planes = torch.cat((3 * (answer - source), source, noise, said.expand(-1, -1, *answer.shape[-2:])), 1)
        near = F.leaky_relu(self.near(planes), 0.2)
        far = F.leaky_relu(self.wide(F.leaky_relu(self.far(near), 0.2)), 0.2)
        return self.scores[0](near), self.scores[1](far)


class Trial:
    """The critic with its optimizer: learns from each batch, and says where the answer should go."""

    def __init__(self, device: str, state: dict | None) -> None:
        self.critic = Critic().to(device)
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=RATE, betas=(0.5, 0.99))
        self.steps = 0
        if state:
            self.critic.load_state_dict(state["critic"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.steps = state["steps"]

    def state(self) -> dict:
        return {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def push(
        self, answer: torch.Tensor, target: torch.Tensor, source: torch.Tensor, noise: torch.Tensor, pairs: list[Pair]
    ) -> torch.Tensor:
        """One step of the critic; then its gradient on `answer` (a detached leaf, (B, 16, h, w)), zero while it warms up."""
        device = answer.device
        kind = torch.tensor([NAMES.index(p.condition) for p in pairs], device=device)
        severity = torch.tensor([p.severity / 100 for p in pairs], device=device)
        about = (source, noise, kind, severity)
        both = [torch.cat((a, a)) for a in about]
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for scores in self.critic(torch.cat((target, answer.detach())), *both):
            real, made = scores.float().chunk(2)
            loss = loss + F.relu(1 - real).mean() + F.relu(1 + made).mean()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        self.loss = loss.item() / 2
        if self.steps <= WARM_UP:
            return torch.zeros_like(answer)
        wrong = -sum(scores.float().mean() for scores in self.critic(answer, *about))
        return torch.autograd.grad(wrong, answer)[0].float()
