# SPDX-License-Identifier: Apache-2.0
"""The contrastive loss between embeddings and phrases, with which the embedded CLIPs learn words."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES
from clip_seg_ros.models.clip.backbone import CLIP
from clip_seg_ros.models.clip.text_tower import encode_text
from clip_seg_ros.models.clip.tokenizer import Tokenizer
from clip_seg_ros.sim.scene import COLORS, KINDS
from clip_seg_ros.training.pocket.phrases import TRAIN_PAIRS, make_query

_SURFACE_SHARE = 0.2


class PhraseBank:
    """One phrase for every pair, class and colour of the world, with newly drawn words at every step.

    Args:
        clip: CLIP with the text tower and the temperature.
        tokenizer: Tokenizer of the text tower.
    """

    def __init__(self, clip: CLIP, tokenizer: Tokenizer) -> None:
        self._clip, self._tokenizer = clip, tokenizer
        # This has the row of each (colour, kind) among the training pairs; -1 for the held-out ones.
        rows = [[TRAIN_PAIRS.index((c, k)) if (c, k) in TRAIN_PAIRS else -1 for k in KINDS] for c in COLORS]
        self._pair_of = torch.tensor(rows)

    def draw(self, rng: np.random.Generator) -> torch.Tensor:
        """Returns the unit embeddings (pairs + classes + colours, D) of one phrase for each."""
        queries = [make_query(rng, color, kind) for color, kind in TRAIN_PAIRS]
        queries += [make_query(rng, None, name) for name in SEMANTIC_CLASSES]
        queries += [make_query(rng, color, None) for color in COLORS]
        token_ids = self._tokenizer([query.text for query in queries]).to(self._clip.positional_embedding.device)
        return F.normalize(encode_text(self._clip, token_ids).pooled, dim=-1)

    def loss(
        self, embeddings: torch.Tensor, bank: torch.Tensor, color: torch.Tensor, class_id: torch.Tensor
    ) -> torch.Tensor:
        """Returns the sum of the cross-entropies over pairs, over classes and over colours.

        Args:
            embeddings: Embeddings (N, D).
            bank: Embeddings of the phrases, from ``draw``.
            color: Indices (N,) into COLORS; rows of -1 count neither for colours nor for pairs.
            class_id: Indices (N,) into SEMANTIC_CLASSES, of a kind in every row with a colour; rows of -1 count neither
                for classes nor for pairs.
        """
        scale = self._clip.logit_scale.clamp(max=4.0).exp()
        pairs, classes, colors = (scale * F.normalize(embeddings, dim=-1) @ bank.T).split(
            [len(TRAIN_PAIRS), len(SEMANTIC_CLASSES), len(COLORS)], dim=1
        )
        pair = self._pair_of.to(color.device)[color, class_id.clamp(max=len(KINDS) - 1)]
        pair = torch.where((color >= 0) & (class_id >= 0), pair, -1)
        parts = ((classes, class_id), (colors, color), (pairs, pair))
        return sum(cross_entropy_of_known(logits, target) for logits, target in parts)


def cross_entropy_of_known(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Returns the mean cross-entropy of (N, classes) over the rows whose (N,) target is not -1; 0 if there is none."""
    total = F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
    return total / (target >= 0).sum().clamp(min=1)


def at_grid(label_map: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Returns the label at the middle of every cell: (B, H, W) to (B, h, w)."""
    rows, columns = label_map.shape[1] // grid[0], label_map.shape[2] // grid[1]
    return label_map[:, rows // 2 :: rows, columns // 2 :: columns]


def mostly_objects(class_ids: torch.Tensor) -> torch.Tensor:
    """Selects all cells on objects and a fifth of those on table and floor, which fill most of an image: (N,) bool."""
    bare = class_ids >= len(KINDS)
    return ((class_ids >= 0) & ~bare) | (bare & (torch.rand(len(bare), device=bare.device) < _SURFACE_SHARE))
