"""Networks of the field to compare with, from MONAI (Apache 2.0), for images of any size and without weights.

Their defaults are those that their authors or MONAI give, and what they are called here is what MONAI calls
them, with `features` for channels. MONAI is imported when a network is made; it comes with
`pip install 'oncoseg[comparators]'`.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import cast

import torch
from torch import Tensor, nn

from oncoseg.errors import RecipeError
from oncoseg.models.blocks import crop_to, joined_factors, pad_to_multiple, pooling_factors

UNETR_PATCH = 16
"""Pixels along each side of a patch; fixed by its architecture."""

UNETR_CROSS = ("norm_cross_attn", "cross_attn")
"""Parts of MONAI's transformer blocks that UNETR never computes."""

DYNUNET_TWICE = ("input_block", "downsamples", "bottleneck", "upsamples")
"""Layers that MONAI's DynUNet also holds within its `skip_layers`."""


class TooLargeError(RuntimeError):
    """An image above the largest size that a network was made for."""


class Fitted(nn.Module):
    """A network that takes certain sizes only, for images of any size up to a largest one.

    The border is repeated at the end of each axis, and the logits are cropped.

    Args:
        network: images `n c …` to logits `n classes …`.
        multiple: the sizes that it takes are multiples of this along each axis.
        smallest: and at least this.
        largest: and at most this; None for any.
    """

    def __init__(
        self,
        network: nn.Module,
        multiple: Sequence[int],
        smallest: Sequence[int],
        largest: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.multiple, self.smallest, self.largest = tuple(multiple), tuple(smallest), largest

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the images' own size.

        Raises:
            TooLargeError: images above the largest size.
        """
        size = tuple(images.shape[2:])
        if self.largest and any(given > most for given, most in zip(size, self.largest, strict=True)):
            raise TooLargeError(
                f"its position embedding is for images of up to {list(self.largest)}, got {list(size)}; set "
                "img_size to the largest that it will see"
            )
        logits = self.network(pad_to_multiple(images, self.multiple, self.smallest))
        return crop_to(logits, images.shape[2:])


def monai_unet(
    in_channels: int,
    classes: int,
    *,
    spatial_dims: int = 2,
    features: Sequence[int] = (64, 128, 256),
    strides: Sequence[int | Sequence[int]] | None = None,
    residual_units: int = 0,
    dropout: float = 0.0,
) -> nn.Module:
    """MONAI's U-Net with strided convolutions (Kerfoot et al. 2018).

    Source: MONAI's UNet (Apache 2.0), which needs pip install 'oncoseg[comparators]'.

    Args:
        in_channels: image channels.
        classes: output channels; background is not one of them.
        spatial_dims: 2 or 3.
        features: channels of each stage, the bottleneck last.
        strides: pooling factor of each step, for all axes or for each; None for 2 everywhere.
        residual_units: convolutions in each residual unit; 0 for plain ones.
        dropout: probability, after each convolution.

    Raises:
        RecipeError: MONAI is not there.
        ValueError: arguments that do not fit.
    """
    factors = pooling_factors(spatial_dims, len(features) - 1, strides)

    def make() -> nn.Module:
        from monai.networks.nets.unet import UNet

        return UNet(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=classes,
            channels=features,
            strides=cast("list[int]", factors),  # one number per axis is right, too
            num_res_units=residual_units,
            dropout=dropout,
        )

    return _fitted(make, joined_factors(factors))


def dynunet(
    in_channels: int,
    classes: int,
    *,
    spatial_dims: int = 2,
    features: Sequence[int] = (32, 64, 128, 256, 512),
    strides: Sequence[int | Sequence[int]] | None = None,
    residual: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """MONAI's U-Net after nnU-Net (Isensee et al. 2021), without its planning and deep supervision.

    Source: MONAI's DynUNet (Apache 2.0), which needs pip install 'oncoseg[comparators]'.

    Args:
        in_channels: image channels.
        classes: output channels; background is not one of them.
        spatial_dims: 2 or 3.
        features: channels of each stage, the bottleneck last; three or more.
        strides: pooling factor of each step, for all axes or for each; None for 2 everywhere.
        residual: take residual blocks.
        dropout: probability, after each convolution.

    Raises:
        RecipeError: MONAI is not there.
        ValueError: arguments that do not fit.
    """
    if len(features) < 3:
        raise ValueError(f"expected three or more features, got {list(features)}")
    factors = pooling_factors(spatial_dims, len(features) - 1, strides)

    def make() -> nn.Module:
        from monai.networks.nets.dynunet import DynUNet

        network = DynUNet(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=classes,
            kernel_size=[3] * len(features),
            strides=[(1,) * spatial_dims, *factors],
            upsample_kernel_size=factors,
            filters=features,
            res_block=residual,
            dropout=dropout or None,
        )
        # it computes with these layers by another name, and the same weights twice cannot be kept safely
        for name in DYNUNET_TWICE:
            delattr(network, name)
        return network

    return _fitted(make, joined_factors(factors))


def segresnet(
    in_channels: int,
    classes: int,
    *,
    spatial_dims: int = 2,
    first_features: int = 16,
    blocks_down: Sequence[int] = (1, 2, 2, 4),
    blocks_up: Sequence[int] = (1, 1, 1),
    dropout: float = 0.0,
) -> nn.Module:
    """SegResNet (Myronenko 2018), without its autoencoder branch.

    Source: MONAI's SegResNet (Apache 2.0), which needs pip install 'oncoseg[comparators]'.

    Args:
        in_channels: image channels.
        classes: output channels; background is not one of them.
        spatial_dims: 2 or 3.
        first_features: channels of the first stage, a multiple of 8; each further one has twice as many.
        blocks_down: residual blocks of each encoder stage.
        blocks_up: residual blocks of each decoder stage, one stage fewer.
        dropout: probability, before the encoder's stages.

    Raises:
        RecipeError: MONAI is not there.
        ValueError: arguments that do not fit.
    """
    if len(blocks_up) != len(blocks_down) - 1:
        raise ValueError(
            f"expected one of blocks_up fewer than of blocks_down, got {list(blocks_up)}, {list(blocks_down)}"
        )

    def make() -> nn.Module:
        from monai.networks.nets.segresnet import SegResNet

        return SegResNet(
            spatial_dims=spatial_dims,
            init_filters=first_features,
            in_channels=in_channels,
            out_channels=classes,
            dropout_prob=dropout or None,
            blocks_down=tuple(blocks_down),
            blocks_up=tuple(blocks_up),
        )

    return _fitted(make, (2 ** len(blocks_up),) * spatial_dims)


def unetr(
    in_channels: int,
    classes: int,
    *,
    spatial_dims: int = 2,
    img_size: int | Sequence[int] = 256,
    first_features: int = 16,
    hidden_size: int = 768,
    mlp_dim: int = 3072,
    heads: int = 12,
    dropout: float = 0.0,
) -> nn.Module:
    """UNETR (Hatamizadeh et al. 2022): a vision transformer of patches of 16 pixels, and a decoder.

    Source: MONAI's UNETR (Apache 2.0), which needs pip install 'oncoseg[comparators]'.

    Args:
        in_channels: image channels.
        classes: output channels; background is not one of them.
        spatial_dims: 2 or 3.
        img_size: largest image that it will see, along all axes or along each, which its position embedding
            is for; smaller ones are padded to it, so that their cost is that of the largest.
        first_features: channels of the decoder's finest stage.
        hidden_size: channels of the transformer, a multiple of `heads`.
        mlp_dim: width of the transformer's feed-forward layers.
        heads: of the transformer's attention.
        dropout: probability, in the transformer.

    Raises:
        RecipeError: MONAI or einops is not there.
        ValueError: arguments that do not fit.
    """
    wanted = (img_size,) * spatial_dims if isinstance(img_size, int) else tuple(img_size)
    if len(wanted) != spatial_dims or min(wanted) < 1:
        raise ValueError(f"expected img_size, a number or {spatial_dims} numbers, got {img_size}")
    whole = [-(-length // UNETR_PATCH) * UNETR_PATCH for length in wanted]

    def make() -> nn.Module:
        from monai.networks.nets.unetr import UNETR

        network = UNETR(
            in_channels=in_channels,
            out_channels=classes,
            img_size=whole,
            feature_size=first_features,
            hidden_size=hidden_size,
            mlp_dim=mlp_dim,
            num_heads=heads,
            dropout_rate=dropout,
            spatial_dims=spatial_dims,
        )
        for block in network.vit.blocks:
            for name in UNETR_CROSS:
                setattr(block, name, nn.Identity())
        return network

    return _fitted(make, whole, largest=whole, needs=("einops",))


def swin_unetr(
    in_channels: int,
    classes: int,
    *,
    spatial_dims: int = 2,
    features: int = 24,
    depths: Sequence[int] = (2, 2, 2, 2),
    heads: Sequence[int] = (3, 6, 12, 24),
    window_size: int = 7,
    dropout: float = 0.0,
) -> nn.Module:
    """Swin UNETR (Hatamizadeh et al. 2022): a shifted-window transformer as encoder, and a decoder.

    Source: MONAI's SwinUNETR (Apache 2.0), which needs pip install 'oncoseg[comparators]'.

    Args:
        in_channels: image channels.
        classes: output channels; background is not one of them.
        spatial_dims: 2 or 3.
        features: channels of the first stage, a multiple of 12; each further one has twice as many.
        depths: transformer blocks of each of the four stages.
        heads: of the attention of each stage.
        window_size: tokens along each side of a window.
        dropout: probability, in the transformer.

    Raises:
        RecipeError: MONAI or einops is not there.
        ValueError: arguments that do not fit.
    """

    def make() -> nn.Module:
        from monai.networks.nets.swin_unetr import SwinUNETR

        return SwinUNETR(
            in_channels=in_channels,
            out_channels=classes,
            depths=tuple(depths),
            num_heads=tuple(heads),
            window_size=window_size,
            feature_size=features,
            drop_rate=dropout,
            spatial_dims=spatial_dims,
        )

    return _fitted(make, (32,) * spatial_dims, needs=("einops",))


def _fitted(
    make: Callable[[], nn.Module],
    multiple: Sequence[int],
    largest: Sequence[int] | None = None,
    needs: Sequence[str] = (),
) -> Fitted:
    """Make a network where torch's default device is, also where that is `meta`."""
    try:
        for package in ("monai", *needs):
            import_module(package)
    except ImportError as error:
        raise RecipeError(
            "This network is MONAI's, which is not installed with all that it needs "
            f"({error.name}); install it with pip install 'oncoseg[comparators]'."
        ) from error
    with torch.device("cpu"):  # some read values while they are made, which `meta` has none of
        network = make()
    # instance norm needs more than one position in the coarsest map
    smallest = largest or (2 * multiple[0], *multiple[1:])
    return Fitted(network, multiple, smallest, largest).to(torch.get_default_device())
