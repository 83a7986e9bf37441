# SPDX-License-Identifier: Apache-2.0
"""CRIS's neck, decoder and projector (Wang et al., CVPR 2022, sections 3.1 to 3.3), with the authors' keys."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.convolutions import convolve_joined, convolve_upsampled, upsample, with_pairs
from clip_seg_ros.models.kept import KeptTensors
from clip_seg_ros.models.layers import CrossAttention, sine_code

MAX_GRID_SIDE = 256
"""The largest side of the decoder's grid, for images of 4096 pixels."""


class ConvBlock(nn.Sequential):
    """A convolution without bias, BatchNorm and ReLU; the size stays the same."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(True))


class JoinBlock(ConvBlock):
    """A ``ConvBlock`` of an image's channels beside those of each of its pairs with a sentence."""

    def __init__(self, image_channels: int, pair_channels: int, out: int, kernel_size: int, image_first: bool) -> None:
        super().__init__(image_channels + pair_channels, out, kernel_size)
        self._image_first = image_first

    def forward(self, image: torch.Tensor, pairs: torch.Tensor, pairs_each: int) -> torch.Tensor:
        """Transforms (B, C1, h, w) and (B * P, C2, h, w) as ``convolve_joined`` does, to (B * P, out, h, w)."""
        return self[2](self[1](convolve_joined(self[0], image, pairs, pairs_each, self._image_first)))


class UpsampleBlock(ConvBlock):
    """A ``ConvBlock`` of 3x3 on maps that are first upsampled bilinearly by two."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3)
        self._kept = KeptTensors(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transforms (N, C, h, w) to (N, out, 2 h, 2 w)."""
        return self[2](self[1](convolve_upsampled(self[0], x, self._kept)))


class CoordConv(nn.Module):
    """A convolution with the coordinates x and y, each from -1 to 1, as two additional channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(in_channels + 2, out_channels, 3)
        self._kept = KeptTensors()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transforms (N, C, h, w)."""
        batch, _, height, width = x.shape

        def coordinates() -> torch.Tensor:
            columns = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype).expand(1, 1, height, width)
            rows = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)[:, None].expand(1, 1, height, width)
            return torch.cat([columns, rows], dim=1)

        grid = self._kept((height, width, x.dtype), coordinates, x.device)
        return self.conv1(torch.cat([x, grid.expand(batch, -1, -1, -1)], dim=1))


class CRISNeck(nn.Module):
    """Combines three levels and the sentence at stride 16 (section 3.1, equations 1 to 4)."""

    def __init__(self, channels: tuple[int, int, int], out: tuple[int, int, int], state_width: int) -> None:
        super().__init__()
        self.txt_proj = nn.Sequential(nn.Linear(state_width, out[2], bias=False), nn.BatchNorm1d(out[2]), nn.ReLU(True))
        self.f1_v_proj = ConvBlock(channels[2], out[2], 1)
        self.norm_layer = nn.Sequential(nn.BatchNorm2d(out[2]), nn.ReLU(True))
        self.f2_v_proj = ConvBlock(channels[1], out[1], 3)
        self.f2_cat = JoinBlock(out[1], out[2], out[1], 1, image_first=True)
        self.f3_v_proj = ConvBlock(channels[0], out[0], 3)
        self.f3_cat = JoinBlock(out[0], out[1], out[1], 1, image_first=True)
        self.f4_proj5 = ConvBlock(out[2], out[1], 3)
        self.f4_proj4 = ConvBlock(out[1], out[1], 3)
        self.f4_proj3 = ConvBlock(out[1], out[1], 3)
        self.aggr = ConvBlock(3 * out[1], out[1], 1)
        self.coordconv = nn.Sequential(CoordConv(out[1], out[1]), ConvBlock(out[1], out[1], 3))

    def project(self, c3: torch.Tensor, c4: torch.Tensor, c5: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Computes what does not depend on a sentence: the three levels, coarsest first, at strides 32, 16 and 16."""
        return self.f1_v_proj(c5), self.f2_v_proj(c4), F.avg_pool2d(self.f3_v_proj(c3), 2)

    def forward(self, levels: tuple[torch.Tensor, ...], state: torch.Tensor, pairs_each: int) -> torch.Tensor:
        """Combines ``levels`` of ``project`` with sentences at stride 16: (B * P, C, H / 16, W / 16).

        Args:
            levels: Those of B images.
            state: (B * P, D) of P sentences for each image, which follow one another.
            pairs_each: P.
        """
        v5, v4, v3 = levels
        factors = self.txt_proj(state)[..., None, None]  # (B * P, C, 1, 1)
        f5 = self.norm_layer(with_pairs(torch.mul, v5, factors, pairs_each))
        f4 = self.f2_cat(v4, f5, pairs_each)
        f3 = self.f3_cat(v3, f4, pairs_each)
        fq5, fq4, fq3 = upsample(self.f4_proj5(f5)), self.f4_proj4(f4), self.f4_proj3(f3)
        return self.coordconv(self.aggr(torch.cat([fq3, fq4, fq5], dim=1)))


class DecoderLayer(nn.Module):
    """Pixels attend to pixels and then to words, followed by a feed-forward net (section 3.2, equations 5 to 7).

    Norms come first, and the output of both attentions is normed again before the residual sum.
    """

    def __init__(self, width: int, n_heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn_norm = nn.LayerNorm(width)
        self.cross_attn_norm = nn.LayerNorm(width)
        self.self_attn = CrossAttention(width, n_heads, dropout)
        self.multihead_attn = CrossAttention(width, n_heads, dropout)
        self.ffn = nn.Sequential(
            nn.Linear(width, feed_forward),
            nn.ReLU(True),
            nn.Dropout(dropout),
            nn.LayerNorm(feed_forward),
            nn.Linear(feed_forward, width),
        )
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: torch.Tensor,
        position: torch.Tensor,
        words: torch.Tensor,
        placed_words: torch.Tensor,
        seen: torch.Tensor,
    ) -> torch.Tensor:
        """Transforms pixels.

        Args:
            x: (N, h * w, C).
            position: (h * w, C), added to queries and keys, never to values.
            words: (N, L, C), the values.
            placed_words: (N, L, C), the keys: words with their positions in the sentence.
            seen: (N, 1, 1, L) bool, False where a word is padding.
        """
        normed = self.norm1(x)
        placed = normed + position
        x = x + self.dropout(self.self_attn_norm(self.self_attn(placed, placed, normed)))
        attended = self.multihead_attn(self.norm2(x) + position, placed_words, words, seen)
        x = x + self.dropout(self.cross_attn_norm(attended))
        return x + self.dropout(self.ffn(self.norm3(x)))


class VisionLanguageDecoder(nn.Module):
    """The decoder layers, the position codes of the image and of the sentence, and the last norm."""

    def __init__(
        self, width: int, n_layers: int, n_heads: int, feed_forward: int, dropout: float, word_length: int
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, n_heads, feed_forward, dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("word_position", sine_code(word_length, width), persistent=False)
        self.register_buffer("axis_position", sine_code(MAX_GRID_SIDE, width // 2), persistent=False)

    def grid_position(self, height: int, width: int) -> torch.Tensor:
        """Returns (h * w, C): the first half of the channels encodes the column, the second half the row.

        Raises:
            ValueError: A side exceeds ``MAX_GRID_SIDE``.
        """
        if max(height, width) > MAX_GRID_SIDE:
            raise ValueError(f"the image is too large: at most {16 * MAX_GRID_SIDE} pixels a side")
        columns = self.axis_position[:width].expand(height, -1, -1)
        rows = self.axis_position[:height, None].expand(-1, width, -1)
        return torch.cat([columns, rows], dim=2).flatten(0, 1)

    def forward(self, x: torch.Tensor, words: torch.Tensor, padding_mask: torch.Tensor) -> torch.Tensor:
        """Transforms pixels (N, C, h, w) by those words (N, L, C) whose ``padding_mask`` (N, L) is False."""
        grid = x.shape[2:]
        position = self.grid_position(*grid)
        placed_words, seen = words + self.word_position, ~padding_mask[:, None, None]
        x = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x, position, words, placed_words, seen)
        return self.norm(x).transpose(1, 2).unflatten(2, grid)


class Projector(nn.Module):
    """Upsamples the pixels four times and correlates them with a 3x3 kernel made of the sentence (section 3.3).

    With ``detail_channels``, which the paper does not have, features of the image at the mask's own stride correct the
    upsampled pixels. The correction begins at zero, so that trained weights of the paper's network give equal output.
    """

    def __init__(self, state_width: int, width: int, detail_channels: int = 0) -> None:
        super().__init__()
        self.channels = width // 2
        # The authors' layers 0 and 2 upsample, which is part of the blocks here.
        self.vis = nn.Sequential(
            nn.Identity(),
            UpsampleBlock(width, width),
            nn.Identity(),
            UpsampleBlock(width, self.channels),
            nn.Conv2d(self.channels, self.channels, 1),
        )
        self.txt = nn.Linear(state_width, 9 * self.channels + 1)
        self.sharpen = None
        if detail_channels:
            correction = nn.Conv2d(self.channels, self.channels, 1)
            nn.init.zeros_(correction.weight)
            nn.init.zeros_(correction.bias)
            block = JoinBlock(detail_channels, self.channels, self.channels, 3, image_first=False)
            self.sharpen = nn.ModuleList([block, correction])
        # Channel i has the product of the kernel's element i with each pixel; this moves it to the pixel it is for.
        self.register_buffer("shifts", torch.eye(9).reshape(1, 9, 3, 3), persistent=False)

    def forward(
        self, x: torch.Tensor, state: torch.Tensor, detail: torch.Tensor | None = None, pairs_each: int = 1
    ) -> torch.Tensor:
        """Returns logits (N, 4 h, 4 w) for pixels (N, C, h, w) and states (N, D): equation 8 at every place.

        ``detail`` (B, detail_channels, 4 h, 4 w), of the images to which ``pairs_each`` of the N belong in turn, is
        needed if the projector was built with it.
        """
        kernel = self.txt(state)
        weight = kernel[:, :-1].unflatten(1, (self.channels, 9)).transpose(1, 2)  # (N, 9, C / 2)
        # This is one matrix product for each pair and one small convolution for all. A convolution with a group for
        # each pair gives the same result and is ten times slower on a CPU.
        if self.sharpen is None:
            answers, size = self._answers(weight, self.vis[3](self.vis[1](x)), self.vis[4])
        else:
            x = self.vis(x)  # (N, C / 2, 4 h, 4 w)
            block, correction = self.sharpen
            answers, size = self._answers(weight, block(detail, x, pairs_each), correction)
            answers = torch.baddbmm(answers, weight, x.flatten(2))
        answers = answers.unflatten(2, size)  # (N, 9, 4 h, 4 w)
        return F.conv2d(answers, self.shifts, padding=1)[:, 0] + kernel[:, -1, None, None]

    @staticmethod
    def _answers(weight: torch.Tensor, x: torch.Tensor, last: nn.Conv2d) -> tuple[torch.Tensor, torch.Size]:
        """Applies the kernels (N, 9, C) to ``last``, a 1x1 convolution, of (N, C, h, w): (N, 9, h * w) and (h, w).

        Both are linear: the kernels are multiplied by the convolution, which is then not computed for every pixel.
        """
        folded = weight @ last.weight.flatten(1)
        # As a column: ONNX Runtime 1.32 optimises a product with a vector and the new axis after it to something else.
        return torch.baddbmm(weight @ last.bias[:, None], folded, x.flatten(2)), x.shape[2:]
