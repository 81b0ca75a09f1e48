"""The table of docs/models.md: how much noise a strength means, by the noise schedules of the models' own configs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from diffgen.editing.levels import levels
from diffgen.types import Settings

STRENGTHS = (0.3, 0.5, 0.6, 0.65, 0.7, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A model's noise schedule. `shift` is that of flow matching, at the native size; None: `scaled_linear` betas."""

    name: str
    shift: float | None = None
    levels: int | None = None

    def noise_share(self, strength: float) -> float:
        """Sigma of sigma + 1 for noise on a picture of variance 1; flow matching's own sigma. At the level that is met."""
        share = levels(replace(_ANY, strength=strength, levels=self.levels))[0]
        if self.shift is not None:
            return self.shift * share / (1 + (self.shift - 1) * share)
        low, high, kept = math.sqrt(0.00085), math.sqrt(0.012), 1.0
        for i in range(max(1, round(1000 * share))):
            kept *= 1 - (low + (high - low) * i / 999) ** 2
        sigma = math.sqrt((1 - kept) / kept)
        return sigma / (1 + sigma)


_ANY = Settings("img2img", "", "", 0.5, 1000, 1.0, None, 8, "jpg", 95)

# scheduler_config.json of each: Stable Diffusion 1.5, 2.1 and XL have the same betas; FLUX.1 dev's shift is e^1.15 for the
# 4096 tokens of 1024 × 1024.
SCHEDULES = (
    Schedule("sd15, sd21, sdxl"),
    Schedule("sd-turbo, sdxl-turbo, sdxl-lightning", levels=4),
    Schedule("lcm-dreamshaper", levels=50),
    Schedule("sd3.5-medium", 3.0),
    Schedule("sd3.5-large-turbo", 3.0, 4),
    Schedule("flux1-dev", math.exp(1.15)),
    Schedule("flux1-dev-turbo", math.exp(1.15), 8),
    Schedule("flux1-schnell", 1.0, 4),
    Schedule("z-image-turbo", 3.0, 8),
)


def noise_table() -> str:
    head = "| model | " + " | ".join(f"{s:g}" for s in STRENGTHS) + " |\n|" + "---|" * (len(STRENGTHS) + 1) + "\n"
    rows = ("".join(f" {schedule.noise_share(s):.2f} |" for s in STRENGTHS) for schedule in SCHEDULES)
    return head + "".join(f"| {s.name} |{row}\n" for s, row in zip(SCHEDULES, rows, strict=True))
