"""The parts of the pocket model, all stock diffusers and transformers classes, and how each starts. No training here.

Nothing is pretrained, so the start matters: the autoencoder begins as a linear one (PCA of 4 × 4 patches, decoder by least
squares) and the denoiser begins as "give the source back", so that training only has to learn the change.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch import nn

LATENT_CHANNELS = 16
VAE_WIDTH = 32
UNET_WIDTHS = (48, 64, 128, 160)
TEXT_WIDTH = 128


def build_vae() -> AutoencoderTiny:
    """Autoencoder with 4 × 4 px per latent cell; one residual block at full resolution, where sharp edges are made."""
    return AutoencoderTiny(
        encoder_block_out_channels=(VAE_WIDTH,) * 3,
        decoder_block_out_channels=(VAE_WIDTH,) * 3,
        num_encoder_blocks=(0, 1, 2),
        num_decoder_blocks=(2, 1, 1),
        latent_channels=LATENT_CHANNELS,
        scaling_factor=1.0,
    )


def patch_pca(crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """PCA of 4 × 4 RGB patches of (B, 3, H, W) in 0..1: (basis (16, 48), mean (48,), deviation (16,))."""
    half = F.pixel_unshuffle(crops, 2)  # channel order c*4 + dy*2 + dx, as the strided convolutions below make it
    patches = F.pixel_unshuffle(half, 2).permute(0, 2, 3, 1).reshape(-1, 48).double()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    order = values.argsort(descending=True)[:LATENT_CHANNELS]
    return vectors[:, order].T.float(), mean.float(), values[order].clamp_min(1e-9).sqrt().float()


@torch.no_grad()
def init_encoder(vae: AutoencoderTiny, crops: torch.Tensor) -> None:
    """Make the encoder compute patch PCA exactly; ReLUs are passed by keeping every carried channel positive."""
    layers = [m for m in vae.encoder.layers if isinstance(m, nn.Conv2d)]
    blocks = [m for m in vae.encoder.layers if not isinstance(m, nn.Conv2d)]
    basis, mean, deviation = patch_pca(crops)
    first, half, quarter, last = layers
    _silence(blocks)
    first.weight[:4] = 0
    first.bias[:4] = torch.tensor([0.0, 0.0, 0.0, 1.0])  # channel 3 carries the constant 1: later layers have no bias
    for c in range(3):
        first.weight[c, c, 1, 1] = 1
    half.weight[:13] = 0
    for c in range(3):
        for dy in (0, 1):
            for dx in (0, 1):
                half.weight[c * 4 + dy * 2 + dx, c, 1 + dy, 1 + dx] = 1
    half.weight[12, 3, 1, 1] = 1
    offset = basis.abs().sum(1)  # pixels are 0..1, so basis·patch > -offset always
    quarter.weight[:17] = 0
    for k in range(12):
        for dy in (0, 1):
            for dx in (0, 1):
                quarter.weight[:16, k, 1 + dy, 1 + dx] = basis[:, k * 4 + dy * 2 + dx]
    quarter.weight[:16, 12, 1, 1] = offset
    quarter.weight[16, 12, 1, 1] = 1
    # Square-root whitening: detail channels get a say in the denoiser's loss without becoming noise.
    gain = deviation.pow(-0.5) / deviation.pow(0.5).mean() * 0.5
    last.weight.mul_(0.05)
    last.weight[:, :17] = 0
    for k in range(16):
        last.weight[k, k, 1, 1] = gain[k]
    last.bias.copy_(-(offset + basis @ mean) * gain)


@torch.no_grad()
def init_decoder(vae: AutoencoderTiny, crops: torch.Tensor) -> None:
    """Least-squares decoder. Nearest upsampling hides where in its 2 × 2 block a pixel lies, so neighbours must tell."""
    layers = list(vae.decoder.layers)
    convs = [m for m in layers if isinstance(m, nn.Conv2d)]
    _silence([m for m in layers if hasattr(m, "fuse")])
    first, half, full, last = convs
    latents = vae.encoder(crops * 2 - 1)
    first.weight[:17] = 0
    first.bias[:17] = 2.5
    for k in range(16):
        first.weight[k, k, 1, 1] = 1
    features = F.interpolate(torch.relu(first(torch.tanh(latents / 3) * 3)), scale_factor=2)
    target = torch.cat((F.pixel_unshuffle(crops, 2), torch.ones_like(crops[:, :1, ::2, ::2])), 1)
    half.weight[:13] = _least_squares(features, target)
    features = F.interpolate(torch.relu(half(features)), scale_factor=2)
    full.weight[:3] = _least_squares(features, crops)
    last.weight.mul_(0.05)
    last.weight[:, :3] = 0
    last.bias.zero_()
    for c in range(3):
        last.weight[c, c, 1, 1] = 1


def _silence(blocks: list[nn.Module]) -> None:
    """Zero each residual branch's last layer: the block starts as the identity on positive values."""
    for block in blocks:
        block.conv[-1].weight.zero_()
        block.conv[-1].bias.zero_()


def _least_squares(features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """3 × 3 kernel (O, C, 3, 3) with conv(features) ≈ target in the least-squares sense."""
    gram, cross = torch.zeros(()), torch.zeros(())
    for x, y in zip(features, target, strict=True):
        rows = F.unfold(x[None], 3, padding=1)[0].double()
        gram = gram + rows @ rows.T
        cross = cross + rows @ y.flatten(1).T.double()
    ridge = torch.eye(len(gram), dtype=gram.dtype) * gram.diagonal().mean() * 1e-6
    return torch.linalg.solve(gram + ridge, cross).T.reshape(target.shape[1], features.shape[1], 3, 3).float()


def build_scheduler() -> DDIMScheduler:
    """Zero terminal SNR and 'sample' prediction: one step from pure noise is a plain function of source, text and seed."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="sample",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


def build_unet() -> UNet2DConditionModel:
    """Denoiser; 'text' addition embedding with scale_shift turns the pooled prompt into FiLM in every residual block."""
    return UNet2DConditionModel(
        sample_size=128,
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=UNET_WIDTHS,
        down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
        # None on the way down at 4 px a cell: a quarter of the whole cost. What a scene shows is learned at 16 and 32 px.
        layers_per_block=(0, 1, 2, 2),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        norm_num_groups=8,
        time_embedding_dim=256,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
    )


def grown(weights: dict[str, torch.Tensor], unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """`weights` of a denoiser with fewer layers a block, as weights for `unet`: the new layers start as the identity.

    On the way down they come last, so their skips repeat what is there; on the way up after the first, where those skips
    are taken up and nothing is made of them.
    """

    def layers(state: dict[str, torch.Tensor], block: str) -> int:
        return len({name.split(".")[3] for name in state if name.startswith(f"{block}.resnets.")})

    state = unet.state_dict()
    old = {}
    for name, value in weights.items():
        found = re.fullmatch(r"(up_blocks\.\d+)\.(resnets|attentions)\.([1-9]\d*)\.(.+)", name)
        if found:
            block, part, index, rest = found.groups()
            name = f"{block}.{part}.{int(index) + layers(state, block) - layers(weights, block)}.{rest}"
        old[name] = value
    for name, value in state.items():
        if name in old:
            continue
        if "conv2" in name or "proj_out" in name or "conv_shortcut" in name:
            value = torch.zeros_like(value)
        if "conv_shortcut.weight" in name:
            value[:, : len(value), 0, 0] = torch.eye(len(value))
        old[name] = value
    return old


@torch.no_grad()
def init_identity(
    unet: UNet2DConditionModel, scaling: float, mean: torch.Tensor, deviation: torch.Tensor, anchor: float = 4.0
) -> None:
    """Start as "answer = source latents × scaling", so that detail is there from the first step.

    conv_in copies the 16 source channels, standardised by `mean` and `deviation` (16,); the last block's shortcut lays
    them out in each norm group as (+a, −a, +b, −b, +C, −C): the mean is 0 and the constants ±C dominate the deviation,
    so GroupNorm is nearly linear, and silu(x) − silu(−x) = x makes the activation vanish in conv_out.
    """
    channels, width = LATENT_CHANNELS, UNET_WIDTHS[0]
    unet.conv_in.weight[: channels + 4] = 0
    for k in range(channels):
        # The pipeline puts the noise first, the source second.
        unet.conv_in.weight[k, channels + k, 1, 1] = 1 / deviation[k]
    # Noise channel 0 as it is, negated, and along a vertical line: what flakes and streaks are made of.
    unet.conv_in.weight[channels, 0, 1, 1] = 1
    unet.conv_in.weight[channels + 1, 0, 1, 1] = -1
    unet.conv_in.weight[channels + 2, 0, :, 1] = 0.6
    unet.conv_in.bias[:channels] = -mean / deviation
    unet.conv_in.bias[channels : channels + 4] = 0
    last = unet.up_blocks[-1].resnets[-1]
    last.conv2.weight.mul_(0.1)
    last.conv2.bias.zero_()
    shortcut = last.conv_shortcut
    shortcut.weight.mul_(0.05)
    skip = shortcut.in_channels - width  # what comes from below is first, conv_in's output second
    shortcut.weight[:, skip:] = 0
    shortcut.bias.zero_()
    unet.conv_out.weight.mul_(0.1)
    unet.conv_out.bias.copy_(mean * scaling)
    spread = ((2 * anchor**2 + 4) / 6) ** 0.5  # of a norm group: two constants and two standardised pairs
    for k in range(channels):
        plus = (k // 2) * 6 + (k % 2) * 2
        shortcut.weight[plus, skip + k] = 1
        shortcut.weight[plus + 1, skip + k] = -1
        unet.conv_out.weight[k] *= 0.1
        unet.conv_out.weight[k, plus, 1, 1] = spread * deviation[k] * scaling
        unet.conv_out.weight[k, plus + 1, 1, 1] = -spread * deviation[k] * scaling
    for group in range(8):
        shortcut.bias[group * 6 + 4] = anchor
        shortcut.bias[group * 6 + 5] = -anchor
