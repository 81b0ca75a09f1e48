"""Source and target latents for the denoiser: crops of photographs, rendered and encoded, in a pool whose oldest pairs
are replaced."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from scripts.pocket.conditions import LOCAL, SHARES
from scripts.pocket.decoys import with_decoys
from scripts.pocket.disguises import MORE_ROAD, OTHER_PAINT, more_road, other_paint, seen_otherwise
from scripts.pocket.lamps import lamp_room
from scripts.pocket.maps import MAP_NAMES, make_maps
from scripts.pocket.marks import LIGHTS, Mark
from scripts.pocket.model import LATENT_CHANNELS
from scripts.pocket.photos import Photo, random_crop
from scripts.pocket.render import NOISE_CHANNELS, render
from scripts.pocket.training import Say

MAPS_CODE = ("filters", "ground", "maps", "marks", "sky")  # files of this package that decide what maps look like
# (share of the training time, crop sides in px): small crops first, because they are cheap and flakes, streaks and lamps are
# learned on them, then whole scenes of several sizes.
CROP_SIDES = ((0.0, (96,)), (0.06, (192,)), (0.18, (256,)), (0.4, (256, 384, 512)))
# From trained weights: small crops alone would make the model forget scenes, so large ones are always among them.
GOING_ON_SIDES = ((0.0, (128, 384)), (0.1, (128, *CROP_SIDES[-1][1])))
MIDDLE = 192  # px: below it a crop shows no scene
LARGE = 384  # px: larger crops come in smaller batches
SCALES = (0.5, 3.0)  # of the photograph; makes long sides of about 200–1,300 px from 416–448 px
LEAST_SHOWN = 0.4  # of the short side, in a crop that shows a scene: in less, a wall cannot be told from a sky
LAMP_TRIES = 4
SCENE = ("sky", "depth", "ground", "plants")
SEEN = (*SCENE, *LIGHTS)  # maps that the denoiser learns to predict beside painting
SEEN_PX = 8  # px per predicted cell: the brightest pixel for lights, the mean for the others
SEVERITIES = tuple(range(0, 101, 5))
LOOKS = ((256, 32), (384, 14))  # px a side, and how many crops, in a batch that only predicts the maps
LOOKED_AT = 0.3  # share of these crops, and of the crops for night, that is taken around a light
KEPT = 0.3  # of their share in SHARES: conditions that are held to the kept model (--only)


def map_photos(photos: list[Photo], marks: dict[str, Mark], work: Path, say: Say) -> dict[str, torch.Tensor]:
    """Maps of every photograph as uint8 (10, H, W), by file name; kept in `work/maps.pt`, so that an interrupted run
    continues.

    They are computed again when the photograph, its mark or the code has changed.
    """
    path = work / "maps.pt"
    kept = torch.load(path) if path.exists() else {}
    code = b"".join((Path(__file__).parent / f"{name}.py").read_bytes() for name in MAPS_CODE)

    def made_of(photo: Photo) -> str:
        return hashlib.sha256(code + repr(marks.get(photo.name)).encode() + photo.pixels.numpy().tobytes()).hexdigest()

    made_by = {p.name: made_of(p) for p in photos}
    maps = {name: kept[f"{name} {key}"] for name, key in made_by.items() if f"{name} {key}" in kept}
    missing = [p for p in photos if p.name not in maps]
    began = saved = time.monotonic()
    for i, photo in enumerate(missing):
        made = make_maps(photo.pixels.float() / 255, marks.get(photo.name))
        maps[photo.name] = (made * 255).round().to(torch.uint8)
        if time.monotonic() - saved > 60 or i + 1 == len(missing):
            torch.save({f"{n} {made_by[n]}": planes for n, planes in maps.items()}, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
            saved = time.monotonic()
            left = (saved - began) / (i + 1) * (len(missing) - i - 1) / 60
            say(f"maps: {len(photos) - len(missing) + i + 1} of {len(photos)}; {left:.1f} min left")
    return maps


@dataclass(frozen=True)
class Pair:
    """One training pair in latents, fp16: `source` and `target` as the encoder gives them, (16, h, w) each.

    `noise` (2, h, w) are the channels that the renderer reads (flakes and streaks; banks and patches), `mask` (1, h, w)
    is where flakes, streaks and lights are; `maps` (8, h/2, w/2) what the crop shows, in the order of SEEN. `condition`
    may name a variant ("night/unlit"). Of a condition that is to stay as it is the target is the source.
    """

    condition: str
    severity: int
    source: torch.Tensor
    target: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor
    maps: torch.Tensor


def room_for_lamps(planes: torch.Tensor) -> float:
    """Share of a crop (3 + maps, H, W) where the seed may place street lamps."""
    return float(lamp_room(dict(zip(MAP_NAMES, planes[3:, None], strict=True))).mean())


def seen_cells(maps: torch.Tensor) -> torch.Tensor:
    """What a crop (10, H, W) shows, (8, H/SEEN_PX, W/SEEN_PX), in the order of SEEN."""
    planes = maps[[MAP_NAMES.index(name) for name in SEEN]]
    scene, lights = planes.split([len(SCENE), len(LIGHTS)])
    return torch.cat((F.avg_pool2d(scene, SEEN_PX), F.max_pool2d(lights, SEEN_PX)))


class PairPool:
    """At most `limit` pairs of each crop side; new ones replace the oldest: each is used a few times, then forgotten.

    `maps` are taken out of the caller's dict, or every photograph's would be held twice. `only`: conditions to render, all
    when empty.
    """

    def __init__(
        self,
        photos: list[Photo],
        maps: dict[str, torch.Tensor],
        vae: AutoencoderTiny,
        phases: tuple[tuple[float, tuple[int, ...]], ...],
        limit: int = 800,
        only: frozenset[str] = frozenset(),
    ) -> None:
        # Photographs made at night teach nothing about turning day into something else.
        bright = [p for p in photos if p.pixels.float().mean() > 75]
        self.planes = [torch.cat((p.pixels, maps.pop(p.name))) for p in bright]
        room = np.array([room_for_lamps(planes / 255) for planes in self.planes])
        self.chance_of_lamps = (room + 1e-6) / (room + 1e-6).sum()
        lit = {kind: [i for i, p in enumerate(self.planes) if p[3 + MAP_NAMES.index(kind)].any()] for kind in LIGHTS}
        self.with_light = {kind: photos for kind, photos in lit.items() if photos}
        self.vae, self.phases, self.limit = vae, phases, limit
        self.pairs: dict[int, deque[Pair]] = {}
        self.only = only

    def kept(self, condition: str) -> bool:
        """Whether a condition, or the one that it is a variant of, is held to the kept model instead of being taught."""
        return bool(self.only) and condition.partition("/")[0] not in self.only

    def grow_crops(self, progress: float) -> bool:
        """Go on to the crop sides for this share of the training time; True if the pool was emptied for it."""
        sides = [sides for share, sides in self.phases if share <= progress][-1]
        changed = sides != tuple(self.pairs)
        if changed:
            self.pairs = {side: deque(maxlen=self.limit) for side in sides}
        return changed

    def __len__(self) -> int:
        return sum(len(pairs) for pairs in self.pairs.values())

    def add(self, rng: np.random.Generator) -> None:
        """Render and encode one crop in one condition."""
        side = int(rng.choice(tuple(self.pairs)))
        local = LOCAL if side < MIDDLE else {}
        chance = np.array(
            [share * local.get(name, 1) * (KEPT if self.kept(name) else 1) for name, share in SHARES.items()]
        )
        name = str(rng.choice(list(SHARES), p=chance / chance.sum()))
        photo, around, tries = self.planes[rng.integers(len(self.planes))], None, 1
        # Lights are rare, so most crops for night are around one of the photograph, or where the seed may place one.
        draw = rng.random() if name == "night" else 1
        if draw < LOOKED_AT and self.with_light:
            photo, around = self.light(rng)
        elif draw < LOOKED_AT + 0.25:
            photo, tries = self.planes[rng.choice(len(self.planes), p=self.chance_of_lamps)], LAMP_TRIES
        crops = [self.crop(photo, side, rng, around) for _ in range(tries)]
        crop = max(crops, key=room_for_lamps) if tries > 1 else crops[0]
        rgb, maps = seen_otherwise(crop[:3], rng), crop[3:]
        severity = int(rng.choice(SEVERITIES))
        noise = torch.randn(LATENT_CHANNELS, side // 4, side // 4)
        kept = self.kept(name)
        painted = "same" if kept or not severity else name
        picture, mask = render(painted, rgb, maps, severity / 100, noise, side >= MIDDLE)
        pictures = torch.stack((rgb,) if kept else (rgb, picture))
        with torch.no_grad():
            latents = self.vae.encoder(pictures.to(self.vae.device) * 2 - 1).half().cpu()
        random = noise[:NOISE_CHANNELS].half()
        self.pairs[side].append(
            Pair(name, severity, latents[0], latents[-1], random, mask.half(), seen_cells(maps).half())
        )

    def batch(self, count: int, rng: np.random.Generator) -> list[Pair]:
        """About `count` pairs of one crop side: of crops under MIDDLE up to three times as many, as the same area allows; of
        crops over LARGE fewer, in proportion to the area."""
        side = int(rng.choice([side for side, pairs in self.pairs.items() if pairs]))
        count = round(count * min(3.0, max(1.0, (MIDDLE / side) ** 2)) * min(1.0, (LARGE / side) ** 2))
        pairs = self.pairs[side]
        return [pairs[i] for i in rng.integers(len(pairs), size=count)]

    def crop(
        self, photo: torch.Tensor, side: int, rng: np.random.Generator, around: tuple[int, int] | None
    ) -> torch.Tensor:
        """A random crop (3 + maps, side, side). One that is large enough for a scene shows at least LEAST_SHOWN of the
        photograph, and is sometimes repainted or given decoys."""
        least, most = SCALES
        if side < MIDDLE:
            return random_crop(photo, side, (least, most), rng, around)
        most = min(most, side / LEAST_SHOWN / min(photo.shape[1:]))
        crop = random_crop(photo, side, (least, most), rng, around)
        if around is None and rng.random() < MORE_ROAD:
            crop = more_road(crop, rng)
        return with_decoys(other_paint(crop, rng) if rng.random() < OTHER_PAINT else crop, rng)

    def light(self, rng: np.random.Generator) -> tuple[torch.Tensor, tuple[int, int]]:
        """A photograph with a light and its place (row, column); each kind of light is equally likely."""
        kind = str(rng.choice(list(self.with_light)))
        photo = self.planes[rng.choice(self.with_light[kind])]
        plane = photo[3 + MAP_NAMES.index(kind)]
        spots = (plane >= 0.5 * plane.max()).nonzero()
        row, column = spots[rng.integers(len(spots))].tolist()
        return photo, (row, column)

    def scenes(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Fresh crops for predicting the maps only: pictures (B, 3, H, W) in 0..1, and what they show, as Pair.maps.

        A share of LOOKED_AT is around a light. The pool's pairs are too few for this: the model soon knows them by heart.
        """
        side, count = LOOKS[rng.integers(len(LOOKS))]
        pictures, shown = [], []
        for _ in range(count):
            photo, around = self.planes[rng.integers(len(self.planes))], None
            if self.with_light and rng.random() < LOOKED_AT:
                photo, around = self.light(rng)
            crop = self.crop(photo, side, rng, around)
            pictures.append(seen_otherwise(crop[:3], rng))
            shown.append(seen_cells(crop[3:]))
        return torch.stack(pictures), torch.stack(shown)
