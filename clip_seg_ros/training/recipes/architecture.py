# SPDX-License-Identifier: Apache-2.0
"""What the methods add to a plain CLIP: the papers' sizes, the same in proportion on smaller towers, or given ones.

Each class is the mapping ``architecture`` of a recipe file. A setting that is left out is that of the weights to begin
with if they are of the method's own kind, and otherwise the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from clip_seg_ros.models.clip.backbone import VisionConfig
from clip_seg_ros.models.clip.tokenizer import build_tokenizer
from clip_seg_ros.models.clipseg.model import CLIPSegConfig
from clip_seg_ros.models.cris.model import CRISConfig
from clip_seg_ros.models.denseclip.detectors import DenseCLIPInstancesConfig
from clip_seg_ros.models.denseclip.model import DenseCLIPConfig
from clip_seg_ros.models.denseclip.prompting import PromptingConfig
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, ExampleStyle, InputSpec, SlidingWindow
from clip_seg_ros.zoo.plain_clip import ClipOptions, PlainClip

_CLIP_PX = 224
"""The side of the images on which OpenAI trained most of its CLIPs."""
_LONG_SIDE_LIMIT = 2048
_DETECTOR_PX = (800, 1333)
"""The short side of images for detectors, and the largest long side."""
_PAPER_DEPTH = 12
"""The number of blocks of the ViT-B/16 for which the papers name blocks."""
_PAPER_EMBED_DIM = 512
"""The narrowest embedding of the papers' CLIPs; below it, DenseCLIP's widths shrink."""
_Rgb = tuple[float, float, float]
_END_TOKENS = 2
"""The start and the end of a text."""


@dataclass(frozen=True)
class Architecture(ClipOptions):
    """The settings of all methods."""

    input_px: int | None = None
    """Side in pixels of the square, or short side, to which images are resized."""

    def given(self) -> dict[str, Any]:
        """Returns the method's own settings that were given, by the names of its configuration."""
        shared = {field.name for field in fields(Architecture)}
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in shared}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class CLIPSegArchitecture(Architecture):
    """CLIPSeg's decoder; see ``CLIPSegConfig``. Its authors' configuration: blocks 3, 7 and 9 of 12, 64 channels."""

    extract_layers: tuple[int, ...] | None = None
    reduce_dim: int | None = None
    n_heads: int | None = None
    feed_forward: int | None = None
    cond_layer: int | None = None
    complex_trans_conv: bool | None = None
    dropout: float | None = None
    stride: int | None = None
    block: Literal["transformer", "linear"] | None = None
    example_style: ExampleStyle | None = None
    image_tower: str | None = None
    """The file of a ViT of timm or torchvision that was trained on ImageNet and takes the place of CLIP's image tower,
    as in the baseline ViTSeg; only with a plain CLIP."""

    def __post_init__(self) -> None:
        if self.block == "linear" and self.extract_layers is not None and len(self.extract_layers) > 1:
            raise ValueError("block: linear is for CLIP-Deconv, which reads one layer: extract_layers needs one number")

    def on_clip(self, clip: PlainClip) -> dict[str, Any]:
        """Returns the configuration of a CLIPSeg on ``clip``. Raises ValueError if a setting does not fit it."""
        vision = clip.config.vision
        vit = isinstance(vision.layers, int)
        deconv = self.block == "linear"
        layers = self.extract_layers or (_blocks((9,) if deconv else (3, 7, 9), vision) if vit else (2, 3, 4))
        size = vision.image_size if vision.trained_on == "imagenet" else _scaled(352, vision, _multiple(vision))
        own = CLIPSegConfig(
            embed_dim=clip.config.embed_dim,
            extract_layers=layers,
            tap_widths=_tap_widths(vision, layers),
            stride=vision.patch_size if vit else 8,
            prefix_tokens=int(vit),
            # The authors normalise for their CLIP with ImageNet's figures.
            input_spec=InputSpec(
                self.input_px or size,
                "squash",
                _multiple(vision),
                IMAGENET_MEAN,
                IMAGENET_STD,
            ),
        )
        # The authors' baseline has narrower layers than their transformer blocks.
        narrow: dict[str, Any] = {"feed_forward": 64} if deconv else {}
        own = replace(own, **{**narrow, **self._own()})
        return {
            "kind": "clipseg",
            "clip": clip.config.to_dict(),
            "clipseg": own.to_dict(),
            "tokenizer": dict(clip.tokenizer),
        }

    def on_own(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the configuration of a CLIPSeg's weight file with the settings that were given."""
        own = CLIPSegConfig.from_dict(config["clipseg"])
        given = self._own()
        vision = VisionConfig(**config["clip"]["vision"])
        widths = _tap_widths(vision, given.get("extract_layers", own.extract_layers))
        own = replace(own, **given, tap_widths=widths, input_spec=_sized(own.input_spec, self.input_px))
        return {**config, "clipseg": own.to_dict()}

    def _own(self) -> dict[str, Any]:
        return {name: value for name, value in self.given().items() if name != "image_tower"}


@dataclass(frozen=True)
class CRISArchitecture(Architecture):
    """CRIS's neck, decoder and projector; see ``CRISConfig``."""

    word_length: int | None = None
    """The number of tokens that are read of a sentence, including start and end: 17 for RefCOCO and RefCOCO+, 22 for
    G-Ref in the authors' configurations."""
    fpn_out: tuple[int, int, int] | None = None
    n_layers: int | None = None
    n_heads: int | None = None
    feed_forward: int | None = None
    dropout: float | None = None
    detail_channels: int | None = None

    def on_clip(self, clip: PlainClip) -> dict[str, Any]:
        """Returns the configuration of a CRIS on ``clip``. Raises ValueError if a setting does not fit it."""
        # The neck's second level is as wide as the words, and the others are half and twice as wide.
        width = clip.config.text.width
        vision = replace(clip.config.vision, output_stride=32)
        own = CRISConfig(
            (width // 2, width, 2 * width),
            InputSpec(self.input_px or _scaled(416, vision, 32), "letterbox", 32, clip.mean, clip.std),
            n_heads=max(1, width // 64),
            feed_forward=4 * width,
        )
        own = replace(own, **self._own())
        length = self.word_length or min(17, clip.config.text.context_length)
        return {
            "kind": "cris",
            "clip": replace(clip.config, vision=vision).to_dict(),
            "cris": own.to_dict(),
            "tokenizer": {**clip.tokenizer, "context_length": length},
        }

    def on_own(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the configuration of a CRIS's weight file with the settings that were given."""
        own = CRISConfig.from_dict(config["cris"])
        own = replace(own, **self._own(), input_spec=_sized(own.input_spec, self.input_px))
        length = self.word_length or config["tokenizer"]["context_length"]
        return {**config, "cris": own.to_dict(), "tokenizer": {**config["tokenizer"], "context_length": length}}

    def _own(self) -> dict[str, Any]:
        return {name: value for name, value in self.given().items() if name != "word_length"}


@dataclass(frozen=True)
class PromptingArchitecture(Architecture):
    """What DenseCLIP's segmenter and detectors share: contexts, context decoder and neck; see ``PromptingConfig``."""

    name_length: int | None = None
    """The number of tokens of a class name, including start and end: by default 5 as in the paper, or more if a name of
    the data set is longer."""
    n_contexts: int | None = None
    prompting: Literal["post", "pre"] | None = None
    context_width: int | None = None
    context_heads: int | None = None
    context_layers: int | None = None
    pyramid_channels: int | None = None
    blocks: tuple[int, int, int, int] | None = None
    dropout: float | None = None
    drop_path: float | None = None
    tau: float | None = None
    context_aware: bool | None = None
    score_map: bool | None = None

    def _prompting(
        self, clip: PlainClip, class_names: Sequence[str], blocks: tuple[int, int, int, int]
    ) -> dict[str, Any]:
        """Returns the shared settings on ``clip``, those that were given among them.

        Raises:
            ValueError: The class names are longer than CLIP's texts, or the tower has too few blocks.
        """
        text, embed_dim = clip.config.text, clip.config.embed_dim
        names = self.name_length or max(5, _longest(class_names, clip.tokenizer))
        contexts = self.n_contexts or min(8, text.context_length - names)
        if contexts < 1 or contexts + names > text.context_length:
            raise ValueError(
                f"class names of {names} tokens leave no room for contexts in CLIP's texts of {text.context_length}: "
                "find shorter names, or begin with another CLIP"
            )
        width = _width(embed_dim)
        values: dict[str, Any] = {"context_width": width, "pyramid_channels": width}
        if isinstance(clip.config.vision.layers, int):
            values["blocks"] = self.blocks or _four_blocks(blocks, clip.config.vision)
        return {**values, **self.given(), "name_length": names, "n_contexts": contexts}


def _dense_towers(clip: PlainClip, positions_px: int, text_length: int) -> dict[str, Any]:
    """Returns the towers' part of a configuration: position tables for images of this side, and shorter texts."""
    vision, text = clip.config.vision, clip.config.text
    return {
        "embed_dim": clip.config.embed_dim,
        "quick_gelu": clip.config.quick_gelu,
        "vision": asdict(replace(vision, image_size=positions_px, output_stride=32)),
        "text": asdict(replace(text, context_length=text_length)),
        # It is longer than a name may be, so that a name that is too long is noticed and not cut.
        "tokenizer": dict(clip.tokenizer),
    }


@dataclass(frozen=True)
class DenseCLIPArchitecture(PromptingArchitecture):
    """DenseCLIP's contexts, context decoder, neck and head; see ``DenseCLIPConfig``."""

    head_channels: int | None = None

    def on_clip(self, clip: PlainClip, class_names: Sequence[str]) -> dict[str, Any]:
        """Returns the configuration of a DenseCLIP on ``clip``.

        Its position tables are those of the training size, as the authors make them: ``start`` resizes CLIP's.

        Raises:
            ValueError: A setting does not fit, or the class names are longer than CLIP's texts.
        """
        vision = clip.config.vision
        size = self.input_px or _scaled(640 if isinstance(vision.layers, int) else 512, vision, 32)
        values = self._prompting(clip, class_names, DenseCLIPConfig.blocks)
        spec = InputSpec(
            size, "short_side", 1, clip.mean, clip.std, _LONG_SIDE_LIMIT, SlidingWindow(size, 2 * size // 3)
        )
        own = DenseCLIPConfig(tuple(class_names), spec, **{"head_channels": _width(clip.config.embed_dim), **values})
        towers = _dense_towers(clip, size, own.n_contexts + own.name_length)
        return {"kind": "denseclip", **towers, "denseclip": own.to_dict()}

    def on_own(self, config: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
        """Returns the configuration of a DenseCLIP's weight file with other classes and the settings given.

        Raises:
            ValueError: The length of contexts and names together is another one than the file's.
        """
        own = DenseCLIPConfig.from_dict({**config["denseclip"], "class_names": class_names})
        spec = _sized(own.input_spec, self.input_px)
        if self.input_px is not None and spec.window is not None:
            spec = replace(spec, window=SlidingWindow(spec.size, 2 * spec.size // 3))
        own = replace(own, **self.given(), input_spec=spec)
        return {**config, "denseclip": own.to_dict()}


@dataclass(frozen=True)
class InstancesArchitecture(PromptingArchitecture):
    """DenseCLIP's detectors; see ``DenseCLIPInstancesConfig``."""

    head: Literal["mask_rcnn", "retinanet"] | None = None
    box_channels: int | None = None
    mask_channels: int | None = None
    anchor_px: float | None = None
    proposals: int | None = None
    sampled_boxes: int | None = None
    least_score: float | None = None
    overlap: float | None = None
    max_objects: int | None = None

    def on_clip(self, clip: PlainClip, class_names: Sequence[str]) -> dict[str, Any]:
        """Returns the configuration of a detector on ``clip``; errors are those of DenseCLIP's."""
        embed_dim, vision = clip.config.embed_dim, clip.config.vision
        width = _width(embed_dim)
        spec = self._spec(_scaled(_DETECTOR_PX[0], vision, 32), clip.mean, clip.std)
        values = {
            "box_channels": 4 * width,
            "mask_channels": width,
            # Objects are as large a part of a smaller image.
            "anchor_px": DenseCLIPInstancesConfig.anchor_px * min(1.0, spec.size / _DETECTOR_PX[0]),
            **self._prompting(clip, class_names, DenseCLIPInstancesConfig.blocks),
        }
        own = DenseCLIPInstancesConfig(tuple(class_names), spec, **values)
        longest = -(-spec.long_side_limit // 32) * 32
        return {
            "kind": "denseclip_instances",
            **_dense_towers(clip, longest, own.n_contexts + own.name_length),
            "denseclip": own.to_dict(),
        }

    def on_own(self, config: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
        """Returns the configuration with the towers of a DenseCLIP or a detector, other classes and the settings given.

        Raises:
            ValueError: The length of contexts and names together is another one than the file's.
        """
        of_file = dict(config["denseclip"])
        if config["kind"] != "denseclip_instances":
            before = InputSpec.from_dict(of_file["input_spec"])
            shared = {field.name for field in fields(PromptingConfig)} - {"blocks"}
            of_file = {name: value for name, value in of_file.items() if name in shared} | {
                "blocks": tuple(of_file["blocks"]),
                "input_spec": asdict(self._spec(_DETECTOR_PX[0], before.mean, before.std)),
            }
        own = DenseCLIPInstancesConfig.from_dict({**of_file, "class_names": class_names})
        if self.input_px is not None:
            own = replace(own, input_spec=self._spec(self.input_px, own.input_spec.mean, own.input_spec.std))
        own = replace(own, **self.given())
        return {**config, "kind": "denseclip_instances", "denseclip": own.to_dict()}

    def _spec(self, size: int, mean: _Rgb, std: _Rgb) -> InputSpec:
        size = self.input_px or size
        return InputSpec(size, "short_side", 32, mean, std, size * _DETECTOR_PX[1] // _DETECTOR_PX[0])


def _blocks(paper: tuple[int, ...], vision: VisionConfig) -> tuple[int, ...]:
    """Returns the blocks of a ViT at the same shares of its depth as ``paper``'s of 12, each block once."""
    assert isinstance(vision.layers, int)
    shares = [(block + 1) * vision.layers / _PAPER_DEPTH for block in paper]
    return tuple(sorted({max(0, round(share) - 1) for share in shares}))


def _width(embed_dim: int) -> int:
    """Returns the channels of DenseCLIP's parts, fewer for an embedding that is narrower than in the paper."""
    return 256 if embed_dim >= _PAPER_EMBED_DIM else max(4, embed_dim // 8 * 4)


def _four_blocks(paper: tuple[int, int, int, int], vision: VisionConfig) -> tuple[int, int, int, int]:
    found = _blocks(paper, vision)
    if len(found) != len(paper):
        raise ValueError(
            f"DenseCLIP reads four blocks of a ViT, and this one has {vision.layers}: begin with another CLIP"
        )
    return found[0], found[1], found[2], found[3]


def _tap_widths(vision: VisionConfig, layers: Sequence[int]) -> tuple[int, ...]:
    if isinstance(vision.layers, int):
        return (vision.width,) * len(layers)
    return tuple(4 * vision.width * 2 ** (stage - 1) for stage in layers)


def _multiple(vision: VisionConfig) -> int:
    """Returns the number of which both sides of an image must be multiples."""
    return vision.patch_size if isinstance(vision.layers, int) else vision.output_stride


def _scaled(paper_px: int, vision: VisionConfig, multiple: int) -> int:
    """Returns the paper's size of images, or for a tower of smaller images the same in proportion."""
    exact = paper_px * min(1.0, vision.image_size / _CLIP_PX)
    return max(1, round(exact / multiple)) * multiple


def _sized(spec: InputSpec, size: int | None) -> InputSpec:
    return spec if size is None else replace(spec, size=size)


def _longest(class_names: Sequence[str], tokenizer: Mapping[str, Any]) -> int:
    """Returns the number of tokens of the longest class name, including start and end."""
    ids = build_tokenizer(tokenizer)(class_names)
    # The end token is the largest id, so that id 0, which is also a piece of the vocabulary, does not matter.
    return max(_END_TOKENS, int(ids.argmax(dim=1).max()) + 1)
