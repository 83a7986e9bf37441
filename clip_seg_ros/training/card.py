"""The model card of the embedded weights, written from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from clip_seg_ros.data.tabletop import FIRST_TRAIN_SEED, TEST_SEEDS
from clip_seg_ros.evaluation.embedded import ANSWERED_SHARE, MIN_NAMED_SHARE
from clip_seg_ros.sim.scene import COLORS, HELD_OUT_PAIRS, KINDS
from clip_seg_ros.training.phrases import known_words
from clip_seg_ros.training.pocket import PocketSettings

PICTURE_NAME = "clipseg_pocket.png"
"""Beside the card: what ``evaluation.pictures.answer_grid`` drew."""

_ROWS = (
    ("colour + kind, all", "named"),
    ("colour + kind, pairs that training held", "seen_pairs"),
    ("colour + kind, the eight pairs it never saw", "unseen_pairs"),
    ("kind alone", "kind_only"),
    ("colour alone", "color_only"),
)

_CARD = """# Model card: the embedded weights (`clipseg-pocket`)

CLIPSeg's decoder on a small CLIP, both trained from nothing on rendered tabletop scenes. {megabytes:.1f} MB in two
files: `clip_pocket.safetensors` (open_clip's CLIP: a ModifiedResNet and a causal text transformer,
{clip_millions:.1f} M parameters) and `clipseg_pocket.safetensors` (the decoder, {decoder_millions:.2f} M), in half
precision.

**What it is for.** Trying every part of this package offline, and testing it. It knows the simulated world and
nothing else: on pictures of a real table its answers mean little.

**Not a ViT.** The decoder is CLIPSeg's (FiLM, post-norm blocks over the taps from the deepest up, transposed
convolution), but it taps stages 2 to 4 of a ResNet on one grid of 8 pixels instead of blocks of a ViT, has no class
token, and its feed-forward layers are {feed_forward} wide instead of 2048. In a trial of 15 minutes on two processor
cores, a small ViT trained from nothing had learnt colours but hardly shapes (IoU 0.50), so the time went into the
ResNet.

## Figures

{scenes:.0f} scenes that training never saw (seeds {first_test} to {last_test}), 640x480, threshold 0.5, phrases bare
("red cup"):

| asked for | phrases | mean IoU | share with IoU > 0.5 |
|---|---|---|---|
{rows}

| not there | phrases | answered with a mask of more than {answered:.1%} of the picture |
|---|---|---|
| a random colour + kind | {random_count:.0f} | {random_answered:.1%} |
| a hard one: colour and kind are both there, on different objects | {hard_count:.0f} | {hard_answered:.1%} |

An object counts as named when it covers at least {named:.1%} of the picture. To repeat:

    clip-seg evaluate --suite embedded --json figures.json --pictures answers.png

![Answers]({picture})

Two rows of random answers, one of the worst, one of absent phrases that got the largest masks. Pink: the answer.
White outline: the truth.

## Data and training

`clip-seg train config/train_pocket.yaml --work DIR --out DIR`, seed {seed}. {train_scenes} rendered scenes from seed
{first_train} up: {kinds} in {colors}; three shapes a kind anew every 25 scenes; 4 to 9 objects, six kinds of table
top, two lamps.

These eight pairs are in no training picture and in no training phrase, absent ones included: {held_out}. Pictures
were also recoloured (hue turned or grey, three in ten) and asked for kinds alone, so that shapes of held-out pairs
were seen in arbitrary colours, never with their names.

| stage | steps | batch | wall time |
|---|---|---|---|
{stages}

The times are for {machine}, without rendering. The vocabulary has {words} words: {word_list}. Every other word shares one embedding, trained to mean "not here".

## Licence

Apache-2.0, like the package. No picture or weight from elsewhere was used.
"""


def write_card(
    path: Path,
    settings: PocketSettings,
    figures: Sequence[Mapping[str, object]],
    seconds: Mapping[str, float],
    parameters: tuple[int, int],
    size_bytes: int,
    machine: str,
) -> None:
    """Writes the card.

    Args:
        path: the Markdown file.
        settings: the recipe.
        figures: from ``evaluation.embedded.summarise``.
        seconds: wall time of every stage.
        parameters: of the CLIP and of the decoder.
        size_bytes: of both weight files together.
        machine: what the training ran on.
    """
    value = {str(f["name"]).removeprefix("embedded.clipseg."): float(f["value"]) for f in figures}
    rows = [
        f"| {label} | {value[f'{key}.count']:.0f} | {value[f'{key}.mean_iou']:.3f} | {value[f'{key}.over_half']:.1%} |"
        for label, key in _ROWS
        if f"{key}.count" in value
    ]
    recipe = {"crops": settings.crops, "scenes": settings.joint, "decoder": settings.decoder}
    stages = [
        f"| {name} | {stage.steps} | {stage.batch} | {seconds[name] / 60:.0f} min |" for name, stage in recipe.items()
    ]
    words = known_words()
    card = _CARD.format(
        megabytes=size_bytes / 1e6,
        clip_millions=parameters[0] / 1e6,
        decoder_millions=parameters[1] / 1e6,
        feed_forward=settings.feed_forward,
        scenes=value["scenes"],
        first_test=TEST_SEEDS[0],
        last_test=TEST_SEEDS[int(value["scenes"]) - 1],
        rows="\n".join(rows),
        answered=ANSWERED_SHARE,
        named=MIN_NAMED_SHARE,
        random_count=value["absent_random.count"],
        random_answered=value["absent_random.answered"],
        hard_count=value.get("absent_hard.count", 0),
        hard_answered=value.get("absent_hard.answered", float("nan")),
        picture=PICTURE_NAME,
        seed=settings.seed,
        train_scenes=settings.scenes,
        first_train=FIRST_TRAIN_SEED,
        kinds=", ".join(KINDS),
        colors=", ".join(COLORS),
        held_out=", ".join(" ".join(pair) for pair in HELD_OUT_PAIRS),
        stages="\n".join(stages),
        machine=machine,
        words=len([word for word in words if word.isalpha()]),
        word_list=", ".join(word for word in words if word.isalpha()),
    )
    path.write_text(card, encoding="utf-8")
