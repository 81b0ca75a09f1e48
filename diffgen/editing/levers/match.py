"""Brings a picture's colour and tone towards those of another one, and leaves its edges where they are.

Three ways, none of which moves an object: the histogram of each channel (Gonzalez and Woods, Digital Image Processing, 3.3),
mean and deviation in CIELAB (Reinhard and others, Color transfer between images, 2001), and the amplitudes of the lowest
frequencies (Yang and Soatto, FDA: Fourier Domain Adaptation, 2020). Pure: arrays in and out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffgen.dataset.images import Pixels

STEEPEST = 4.0  # of a curve from grey level to grey level: a steeper one shows noise that the picture does not have
SIDE = 256  # px; the long side at which frequencies are compared
LOWEST = 0.02  # share of the frequencies, along each side, whose amplitudes are the other's


def matched(pixels: Pixels, target: Pixels, method: str, amount: float) -> Pixels:
    """`pixels`, (H, W, 3), with a share `amount` (0 to 1) of the change that makes it look like `target`, of any size.
    `method` is "histogram", "reinhard" or "fourier"."""
    if amount <= 0:
        return pixels
    if method == "histogram":
        return _by_curves(pixels, [_curve(pixels[..., c], target[..., c]) for c in range(3)], amount)
    made = _reinhard(pixels, target) if method == "reinhard" else _fourier(pixels, target)
    mixed = pixels + np.float32(amount) * (made - pixels)
    return np.asarray(np.rint(mixed.clip(0, 255)), dtype=np.uint8)


def _by_curves(pixels: Pixels, curves: list[NDArray[np.float64]], amount: float) -> Pixels:
    same = np.arange(256)
    tables = [np.rint(((1 - amount) * same + amount * curve).clip(0, 255)).astype(np.uint8) for curve in curves]
    return np.stack([table[pixels[..., c]] for c, table in enumerate(tables)], axis=-1)


def _curve(channel: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Grey level -> grey level, (256,): the rising curve that gives `channel` the distribution of `wanted`, but nowhere
    steeper than STEEPEST; exact at the channel's median."""
    (levels, ranks), (their_levels, their_ranks) = _ranks(channel), _ranks(wanted)
    curve = np.interp(np.arange(256), levels, np.interp(ranks, their_ranks, their_levels))
    middle = int(np.median(channel))
    limited = np.concatenate([[0.0], np.minimum(np.diff(curve), STEEPEST).cumsum()])
    return np.asarray(limited - limited[middle] + curve[middle])


def _ranks(channel: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The grey levels that occur, and the middle rank (0 to 1) of the pixels at each."""
    counts = np.bincount(channel.ravel(), minlength=256)
    levels = np.flatnonzero(counts)
    return levels, (counts.cumsum() - counts / 2)[levels] / channel.size


def _reinhard(pixels: Pixels, target: Pixels) -> NDArray[np.float32]:
    import cv2

    ours, theirs = (
        cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3) for p in (pixels, target)
    )
    share = np.minimum(theirs.std(0) / np.maximum(ours.std(0), 1e-3), STEEPEST)
    made = ((ours - ours.mean(0)) * share + theirs.mean(0)).reshape(pixels.shape)
    return np.asarray(cv2.cvtColor(made.astype(np.float32), cv2.COLOR_LAB2RGB) * 255, dtype=np.float32)


def _fourier(pixels: Pixels, target: Pixels) -> NDArray[np.float32]:
    """The change is worked out on small pictures and added to the whole one: it has low frequencies only."""
    import cv2

    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = max(2, round(width * scale)), max(2, round(height * scale))
    ours, theirs = (cv2.resize(p, size, interpolation=cv2.INTER_AREA).astype(np.float32) for p in (pixels, target))
    spectrum, other = np.fft.fft2(ours, axes=(0, 1)), np.fft.fft2(theirs, axes=(0, 1))
    low = np.abs(np.fft.fftfreq(size[1]))[:, None] + 0 * np.fft.fftfreq(size[0])[None]
    low = np.maximum(low, np.abs(np.fft.fftfreq(size[0]))[None])
    phases = np.exp(1j * np.angle(spectrum))
    changed = np.where((low <= LOWEST / 2)[..., None], np.abs(other) * phases, spectrum)
    change = np.asarray(np.fft.ifft2(changed, axes=(0, 1)).real - ours, dtype=np.float32)
    return np.asarray(pixels + cv2.resize(change, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
