# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES
from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig, build_clip
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer
from clip_seg_ros.sim.scene import COLORS, HELD_OUT_PAIRS, KINDS
from clip_seg_ros.training.pocket.contrast import PhraseBank, at_grid, cross_entropy_of_known, mostly_objects
from clip_seg_ros.training.pocket.phrases import TRAIN_PAIRS, known_words
from nearness import assert_near


@pytest.fixture
def bank() -> PhraseBank:
    tokenizer = CompactTokenizer(known_words(), 24)
    torch.manual_seed(0)
    text = TextConfig(24, tokenizer.vocab_size, 16, 2, 1)
    return PhraseBank(build_clip(ClipConfig(8, VisionConfig((1, 1, 1, 1), 4, 64, head_width=32), text)), tokenizer)


def numbers(pair: tuple[str, str]) -> tuple[int, int]:
    return COLORS.index(pair[0]), KINDS.index(pair[1])


def test_every_pair_class_and_colour_has_one_phrase(bank: PhraseBank) -> None:
    with torch.no_grad():
        drawn, again, other = (bank.draw(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert drawn.shape == (len(TRAIN_PAIRS) + len(SEMANTIC_CLASSES) + len(COLORS), 8)
    assert_near(drawn.norm(dim=1), torch.ones(len(drawn)))
    assert_near(again, drawn)
    assert not torch.allclose(drawn, other, atol=1e-2)


def test_the_loss_against_the_obvious_loop(bank: PhraseBank) -> None:
    """Each embedding against the pairs, the classes and the colours; what it has none of does not count."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        phrases = bank.draw(np.random.default_rng(0))
        embeddings = torch.randn(6, 8, generator=generator)
        color, kind = numbers(TRAIN_PAIRS[3])
        held, other = numbers(HELD_OUT_PAIRS[0]), numbers(TRAIN_PAIRS[20])
        # A pair, a recoloured object, a surface, nothing known, a pair that training holds out, another pair.
        colors = torch.tensor([color, -1, -1, -1, held[0], other[0]])
        classes = torch.tensor([kind, kind, SEMANTIC_CLASSES.index("table"), -1, held[1], other[1]])
        found = bank.loss(embeddings, phrases, colors, classes)
        scale = bank._clip.logit_scale.exp()
        losses: dict[str, list[float]] = {"pair": [], "class": [], "color": []}
        for embedding, c, k in zip(embeddings, colors.tolist(), classes.tolist(), strict=True):
            logits = (scale * phrases @ (embedding / embedding.norm())).tolist()
            pairs, rest = logits[: len(TRAIN_PAIRS)], logits[len(TRAIN_PAIRS) :]
            known, named = rest[: len(SEMANTIC_CLASSES)], rest[len(SEMANTIC_CLASSES) :]
            pair = (COLORS[c], KINDS[k]) if c >= 0 and k >= 0 else None
            for name, group, target in (
                ("pair", pairs, TRAIN_PAIRS.index(pair) if pair in TRAIN_PAIRS else -1),
                ("class", known, k),
                ("color", named, c),
            ):
                if target >= 0:
                    losses[name].append(np.log(np.exp(group).sum()) - group[target])
    assert [len(values) for values in losses.values()] == [2, 5, 3]
    assert float(found) == pytest.approx(sum(np.mean(values) for values in losses.values()), rel=1e-4)


def test_rows_of_unknown_class_count_for_nothing() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([2, -1, 0, -1])
    expected = torch.nn.functional.cross_entropy(logits[[0, 2]], target[[0, 2]])
    assert_near(cross_entropy_of_known(logits, target), expected)
    assert cross_entropy_of_known(logits, torch.full((4,), -1)) == 0


def test_a_cell_has_the_label_at_its_middle() -> None:
    labels = torch.arange(2 * 8 * 12).reshape(2, 8, 12)
    found = at_grid(labels, (2, 4))
    assert found.shape == (2, 2, 4)
    assert found[1, 1, 2] == labels[1, 4 + 2, 2 * 3 + 1]


def test_all_objects_and_a_fifth_of_the_rest_are_kept() -> None:
    torch.manual_seed(0)
    classes = torch.cat([torch.zeros(100), torch.full((5000,), len(KINDS)), torch.full((100,), -1)]).long()
    kept = mostly_objects(classes)
    assert kept[:100].all()
    assert not kept[-100:].any()
    assert kept[100:-100].float().mean() == pytest.approx(0.2, abs=0.02)
