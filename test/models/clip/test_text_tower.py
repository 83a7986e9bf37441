# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from clip_seg_ros.models.clip.backbone import CLIP
from clip_seg_ros.models.clip.text_tower import encode_text
from nearness import assert_near

START, END = 28, 29


class TestText:
    IDS = torch.tensor(
        [
            [START, 5, END, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            [START, 5, 6, 0, 7, END, 0, 0, 0, 0, 0, 0],
        ]
    )

    @torch.no_grad()
    def test_cutting_padding_is_exact(self, vit_clip: CLIP) -> None:
        features = encode_text(vit_clip, self.IDS)
        assert_near(features.pooled, vit_clip.encode_text(self.IDS))
        assert features.tokens.shape == (2, 6, 16)
        assert torch.equal(features.padding_mask, self.IDS[:, :6] == 0)

    @torch.no_grad()
    def test_full_context(self, vit_clip: CLIP) -> None:
        ids = torch.tensor([[START, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, END]])
        assert_near(encode_text(vit_clip, ids).pooled, vit_clip.encode_text(ids))
