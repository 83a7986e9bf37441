# SPDX-License-Identifier: Apache-2.0
"""The way of an image into CRIS and back, against arrays recorded from the authors' implementation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from clip_seg_ros.models.clip.tokenizer import ClipTokenizer
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, InputSpec
from clip_seg_ros.pipeline.letterbox import from_square, letterbox_affine, mask_to_square
from clip_seg_ros.pipeline.preprocess import Geometry, Preprocessor
from nearness import assert_near

SPEC = InputSpec(96, "letterbox", 32, CLIP_MEAN, CLIP_STD)


@pytest.fixture
def recorded(golden_folder: Path) -> dict[str, np.ndarray]:
    with np.load(golden_folder / "cris_pre_post_metrics.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("index", [0, 1])
def test_preparation(recorded: dict[str, np.ndarray], index: int) -> None:
    rgb = cv2.cvtColor(recorded[f"in.image{index}_bgr_uint8"], cv2.COLOR_BGR2RGB)
    prepared = Preprocessor(SPEC, torch.device("cpu"))(rgb)
    assert_near(prepared.pixels[0], recorded[f"out.{index}.network_input"])
    size = tuple(recorded[f"out.{index}.ori_size_hw"])
    assert prepared.geometry == Geometry(size, (96, 96), letterbox=True)
    affine = letterbox_affine(size, 96)
    assert_near(affine, recorded[f"out.{index}.forward_affine"], relative=1e-6)
    assert_near(cv2.invertAffineTransform(affine), recorded[f"out.{index}.inverse_affine"], relative=1e-6)


@pytest.mark.parametrize("index", [0, 1])
def test_mask_and_words(recorded: dict[str, np.ndarray], index: int) -> None:
    mask = recorded[f"in.mask{index}_uint8"] > 127
    assert_near(mask_to_square(mask, 96), recorded[f"out.{index}.train_mask"])
    assert ClipTokenizer(17)(["the left dog"])[0].tolist() == recorded[f"out.{index}.word_vec"].tolist()


@pytest.mark.parametrize("index", [0, 1])
def test_the_way_back(recorded: dict[str, np.ndarray], index: int) -> None:
    probabilities = torch.from_numpy(recorded["in.network_logits"][index]).sigmoid().numpy()
    size = tuple(recorded[f"out.{index}.ori_size_hw"])
    restored = from_square(probabilities, 96, size)[0]
    assert_near(restored, recorded[f"out.{index}.prob_warped_to_original"])
