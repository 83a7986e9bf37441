# SPDX-License-Identifier: Apache-2.0
"""Converts CLIPSeg's published weights: whole models of Hugging Face, and the authors' decoders, which need a CLIP.

Options: ``clip`` (tensors of the CLIP that the authors' decoder was trained on), ``extract_layers`` (default 3, 6, 9),
``cond_layer`` (0), ``n_heads`` of the decoder (4), ``vision_head_width`` and ``text_head_width`` of CLIP (64),
``antialias`` (true), and ``templates`` (none), sentences such as "a photo of a {}." whose embeddings are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig
from clip_seg_ros.models.clip.convert import BOOKKEEPING, HEAD_WIDTH, clip_config
from clip_seg_ros.models.clip.text_tower import require_templates
from clip_seg_ros.models.clip.tokenizer import tokenizer_config
from clip_seg_ros.models.clipseg.model import CLIPSeg, CLIPSegConfig
from clip_seg_ros.models.conversion.mapping import (
    Converted,
    Source,
    antialiased,
    assemble,
    count_blocks,
    require,
    shapes_of,
)
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec

OPTIONS = frozenset(
    {"extract_layers", "cond_layer", "n_heads", "vision_head_width", "text_head_width", "antialias", "templates"}
)
_INPUT_SIZE = 352
_QKV = ("q_proj", "k_proj", "v_proj")


def matches_hugging_face(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are the tensors of a Hugging Face CLIPSeg."""
    return any(key.startswith("clip.vision_model.") for key in tensors)


def matches_authors(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are the tensors of the authors' decoder, with or without their CLIP."""
    return any(key.startswith("film_") for key in tensors)


def templates_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the option "templates". Raises ValueError if it is no list of sentences with "{}"."""
    templates = options.get("templates", ())
    if not isinstance(templates, (list, tuple)):
        raise ValueError(f"the option templates must be a list of sentences, got {templates!r}")
    require_templates(templates)
    return tuple(templates)


def convert_hugging_face(tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]) -> Converted:
    """Converts a Hugging Face CLIPSeg.

    Raises:
        WeightsError: Keys are missing, unexpected or mis-shaped.
    """
    clip = _hugging_face_clip_config(tensors, origin, options)
    return _convert(
        tensors, origin, options, clip, "decoder.", _hugging_face_source, lambda key: key.endswith(".position_ids")
    )


def as_hugging_face(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns tensors of this package's CLIPSeg under the names of Hugging Face's: the inverse of its conversion."""
    theirs: dict[str, torch.Tensor] = {}
    for key, value in tensors.items():
        source = _hugging_face_source(key)
        value = value.T if source.transposed else value
        theirs.update(zip(source.keys, value.chunk(len(source.keys)) if value.ndim else [value], strict=True))
    return {key: value.contiguous() for key, value in theirs.items()}


def convert_authors(tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]) -> Converted:
    """Converts the authors' decoder together with the CLIP that it was trained on.

    The CLIP is taken from the file itself if it has one, else from ``options["clip"]``.

    Raises:
        WeightsError: There is no CLIP, or keys are missing, unexpected or mis-shaped.
    """
    prefix = "clip_model."
    if not any(key.startswith(prefix) for key in tensors):
        if "clip" not in options:
            raise WeightsError(
                f"{origin} holds the decoder alone and needs the CLIP it was trained on, OpenAI's ViT-B/16: add "
                "--clip FILE, with OpenAI's ViT-B-16.pt or the file that open_clip downloads for ViT-B-16-quickgelu"
            )
        # They keep their own names, so that a message names the tensors as in their file.
        prefix = ""
        tensors = {**tensors, **{key: value for key, value in options["clip"].items() if key not in BOOKKEEPING}}
    clip = clip_config(
        tensors,
        origin,
        prefix,
        vision_head_width=options.get("vision_head_width", HEAD_WIDTH),
        text_head_width=options.get("text_head_width", HEAD_WIDTH),
    )

    def source(key: str) -> Source:
        part, _, name = key.partition(".")
        return Source((prefix + name if part == "clip" else name,))

    # "reduce" is in the authors' files, but is not used; "model" is the image tower a second time.
    return _convert(tensors, origin, options, clip, "", source, lambda key: key.startswith(("reduce.", "model.")))


def _convert(
    tensors: Mapping[str, torch.Tensor],
    origin: str,
    options: Mapping[str, Any],
    clip: ClipConfig,
    prefix: str,
    source: Callable[[str], Source],
    ignored: Callable[[str], bool],
) -> Converted:
    """Does the steps that both layouts share; ``prefix`` is the prefix of the decoder's keys in the file."""
    layers = tuple(options.get("extract_layers", (3, 6, 9)))
    blocks = "layers." if prefix else "blocks."
    feed_forward = "mlp.fc1.weight" if prefix else "linear1.weight"
    decoder = CLIPSegConfig(
        embed_dim=clip.embed_dim,
        extract_layers=layers,
        tap_widths=(clip.vision.width,) * len(layers),
        stride=clip.vision.patch_size,
        prefix_tokens=1,
        input_spec=InputSpec(
            _INPUT_SIZE,
            "squash",
            clip.vision.patch_size,
            IMAGENET_MEAN,
            IMAGENET_STD,
            antialias=antialiased(options),
        ),
        reduce_dim=len(require(tensors, f"{prefix}film_mul.weight", origin)),
        n_heads=options.get("n_heads", 4),
        feed_forward=len(require(tensors, f"{prefix}{blocks}0.{feed_forward}", origin)),
        cond_layer=options.get("cond_layer", 0),
        complex_trans_conv=any(
            key.startswith((f"{prefix}transposed_convolution.4.", "trans_conv.4.")) for key in tensors
        ),
        templates=templates_of(options),
    )
    config = {
        "kind": "clipseg",
        "clip": clip.to_dict(),
        "clipseg": decoder.to_dict(),
        "tokenizer": tokenizer_config(clip.text.vocab_size, clip.text.context_length),
    }
    wanted = shapes_of(lambda: CLIPSeg.from_config("", config))
    return Converted(config, assemble(wanted, source, tensors, origin, ignored))


def _hugging_face_clip_config(
    tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]
) -> ClipConfig:
    vision, text = "clip.vision_model.", "clip.text_model."
    width, _, patch, _ = require(tensors, f"{vision}embeddings.patch_embedding.weight", origin).shape
    positions = len(require(tensors, f"{vision}embeddings.position_embedding.weight", origin))
    vocab_size, text_width = require(tensors, f"{text}embeddings.token_embedding.weight", origin).shape
    return ClipConfig(
        embed_dim=len(require(tensors, "clip.text_projection.weight", origin)),
        vision=VisionConfig(
            layers=count_blocks(tensors, f"{vision}encoder.layers."),
            width=width,
            image_size=round((positions - 1) ** 0.5) * patch,
            patch_size=patch,
            head_width=options.get("vision_head_width", HEAD_WIDTH),
        ),
        text=TextConfig(
            context_length=len(require(tensors, f"{text}embeddings.position_embedding.weight", origin)),
            vocab_size=vocab_size,
            width=text_width,
            heads=text_width // options.get("text_head_width", HEAD_WIDTH),
            layers=count_blocks(tensors, f"{text}encoder.layers."),
        ),
        quick_gelu=True,
    )


# Ours -> Hugging Face's; the block's own part of a name is in _BLOCK.
_FIXED: dict[str, str | Source] = {
    "clip.logit_scale": Source(("clip.logit_scale",)),
    "clip.positional_embedding": Source(("clip.text_model.embeddings.position_embedding.weight",)),
    "clip.text_projection": Source(("clip.text_projection.weight",), transposed=True),
    "clip.token_embedding.weight": Source(("clip.text_model.embeddings.token_embedding.weight",)),
    "clip.ln_final.": "clip.text_model.final_layer_norm.",
    "clip.visual.class_embedding": Source(("clip.vision_model.embeddings.class_embedding",)),
    "clip.visual.positional_embedding": Source(("clip.vision_model.embeddings.position_embedding.weight",)),
    "clip.visual.conv1.": "clip.vision_model.embeddings.patch_embedding.",
    "clip.visual.proj": Source(("clip.visual_projection.weight",), transposed=True),
    "clip.visual.ln_pre.": "clip.vision_model.pre_layrnorm.",
    "clip.visual.ln_post.": "clip.vision_model.post_layernorm.",
    "decoder.trans_conv.": "decoder.transposed_convolution.",
}
_STACKS = {
    "clip.visual.transformer.resblocks.": "clip.vision_model.encoder.layers.",
    "clip.transformer.resblocks.": "clip.text_model.encoder.layers.",
    "decoder.blocks.": "decoder.layers.",
}
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
    "self_attn.out_proj": "self_attn.out_proj",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "linear1": "mlp.fc1",
    "linear2": "mlp.fc2",
}


def _hugging_face_source(key: str) -> Source:
    for ours, theirs in _STACKS.items():
        if key.startswith(ours):
            index, _, part = key[len(ours) :].partition(".")
            layer = f"{theirs}{index}."
            if "in_proj_" in part:
                kind = part.rsplit("_", 1)[1]  # weight or bias
                return Source(tuple(f"{layer}self_attn.{name}.{kind}" for name in _QKV))
            name, _, kind = part.rpartition(".")
            return Source((f"{layer}{_BLOCK[name]}.{kind}",))
    for ours, fixed in _FIXED.items():
        if key.startswith(ours):
            return fixed if isinstance(fixed, Source) else Source((fixed + key[len(ours) :],))
    return Source((key,))  # the decoder's film and reduces have the same names
