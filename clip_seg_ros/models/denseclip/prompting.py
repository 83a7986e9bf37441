# SPDX-License-Identifier: Apache-2.0
"""What DenseCLIP's segmenter and detectors share: texts, adapted to the image, score every place of a backbone's maps.

pixels -> backbone -> four maps, a global and a local embedding
names  -> text tower after learned contexts -> texts -> + gamma * context decoder(texts, embeddings)
score map = cosine of local embedding and texts -> joins the map of the same resolution
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.base import PromptableSegmenter, TextFeatures
from clip_seg_ros.models.clip.backbone import (
    ModifiedResNet,
    TextConfig,
    TextTransformer,
    VisionConfig,
    build_text_tower,
    build_vision_tower,
)
from clip_seg_ros.models.clip.tokenizer import Tokenizer, build_tokenizer
from clip_seg_ros.models.denseclip.backbones import DenseBackbone, DenseFeatures, DenseResNet, DenseViT, TimmBackbone
from clip_seg_ros.models.denseclip.parts import ContextDecoder
from clip_seg_ros.models.spec import InputSpec

if TYPE_CHECKING:
    from typing_extensions import Self

_BELOW_2_DEVIATIONS = 0.5 * math.erfc(math.sqrt(2.0))
"""The probability that a normally distributed value lies more than 2 deviations below the mean."""


@dataclass(frozen=True)
class PromptingConfig:
    """What the segmenter and the detectors have in common besides their towers."""

    class_names: tuple[str, ...]
    """The names of the classes without a template; their number is part of the weights' shapes."""
    input_spec: InputSpec
    name_length: int = 5
    """The number of tokens of a class name, including start and end; a longer name is refused."""
    n_contexts: int = 8
    """The number of learned vectors between the start token and the name."""
    prompting: Literal["post", "pre"] = "post"
    """Where the image adapts the texts: after the text tower (equation 5, the paper's choice), or before it as the
    contexts (equation 4; the text tower then runs for every image, and ``contexts`` are the queries)."""
    context_width: int = 256
    context_heads: int = 4
    context_layers: int = 3
    blocks: tuple[int, int, int, int] = (3, 5, 7, 11)
    """ViT only: the blocks whose outputs are the four maps."""
    dropout: float = 0.1
    drop_path: float = 0.1
    timm_backbone: str | None = None
    """Name of a timm model that replaces CLIP's image tower."""
    timm_options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of ``timm.create_model``, as plain values: a Swin takes images of any size only with
    ``{"strict_img_size": False}``, a ViT with ``{"dynamic_img_size": True, "out_indices": [2, 5, 8, 11]}``."""
    tau: float = 0.07
    """Temperature of the score map in its own loss."""
    context_aware: bool = True
    """Whether the image adapts the texts (section 3.3); otherwise they are only the learnt contexts and names."""
    score_map: bool = True
    """Whether the score map is added to the pyramid (section 3.2); otherwise the texts do not influence the result."""

    def __post_init__(self) -> None:
        if self.prompting not in ("post", "pre"):
            raise ValueError(f'prompting must be "post" or "pre", got "{self.prompting}"')
        if self.prompting == "pre" and not self.context_aware:
            raise ValueError('"pre" prompting makes the contexts from the image: it cannot go without context_aware')
        if len(set(self.class_names)) != len(self.class_names) or not self.class_names:
            raise ValueError("class names must be given, each once")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Makes a configuration from the values of ``to_dict``.

        Raises:
            TypeError: Names are unknown or missing.
            ValueError: A value is wrong.
        """
        nested = {
            "class_names": tuple(values["class_names"]),
            "input_spec": InputSpec.from_dict(values["input_spec"]),
            "blocks": tuple(values.get("blocks", (3, 5, 7, 11))),
        }
        return cls(**{**values, **nested})


ConfigT = TypeVar("ConfigT", bound=PromptingConfig)


class TextGuided(PromptableSegmenter[DenseFeatures], Generic[ConfigT]):
    """A backbone whose maps carry the score map of a fixed list of classes. Subclasses add what reads the maps."""

    config_type: ClassVar[type[PromptingConfig]] = PromptingConfig
    """The class of the part "denseclip" of a weight file's configuration."""

    def __init__(
        self,
        name: str,
        backbone: DenseBackbone,
        text_encoder: TextTransformer,
        config: ConfigT,
        tokenizer: Tokenizer,
    ) -> None:
        """Combines the parts; all weights but those of the towers are random.

        Raises:
            ValueError: The length of the text tower's context is not that of contexts and names together.
        """
        super().__init__()
        if text_encoder.context_length != config.n_contexts + config.name_length:
            wanted = f"{config.n_contexts} contexts and names of {config.name_length} tokens"
            raise ValueError(f"a text tower of {text_encoder.context_length} tokens does not fit {wanted}")
        self.name = name
        self.config = config
        self.input_spec = config.input_spec
        self.class_names = config.class_names
        self.tokenizer = tokenizer
        self.backbone = backbone
        # The text tower is frozen; only the contexts before the names and what is added to the texts are trained.
        self.text_encoder = text_encoder.requires_grad_(False)
        word_width, embed_dim = text_encoder.text_projection.shape
        # This is a normal distribution cut at 2 deviations. nn.init.trunc_normal_ would draw until all values lie
        # within, which never ends if a loader has disabled random numbers.
        chances = torch.rand(1, config.n_contexts, word_width) * (1 - 2 * _BELOW_2_DEVIATIONS) + _BELOW_2_DEVIATIONS
        self.contexts = nn.Parameter(torch.special.ndtri(chances))
        if config.context_aware:
            if config.prompting == "post":
                # It is small, so that training begins with CLIP's own texts.
                self.gamma = nn.Parameter(torch.full((embed_dim,), 1e-4))
            prompted_width = embed_dim if config.prompting == "post" else word_width
            self.context_decoder = ContextDecoder(
                prompted_width,
                embed_dim,
                config.context_width,
                config.context_heads,
                config.context_layers,
                config.dropout,
            )

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> Self:
        """Builds the model that a weight file describes, with random weights.

        Raises:
            KeyError, TypeError, ValueError: The configuration does not describe such a model.
        """
        own: Any = cls.config_type.from_dict(config["denseclip"])
        embed_dim, quick_gelu = config["embed_dim"], config["quick_gelu"]
        if own.timm_backbone is not None:
            backbone = TimmBackbone(own.timm_backbone, embed_dim, own.timm_options)
        else:
            visual = build_vision_tower(VisionConfig(**config["vision"]), embed_dim, quick_gelu)
            resnet = isinstance(visual, ModifiedResNet)
            backbone = DenseResNet(visual) if resnet else DenseViT(visual, own.blocks, own.drop_path)
        text = build_text_tower(TextConfig(**config["text"]), embed_dim, quick_gelu)
        return cls(name, backbone, text, own, build_tokenizer(config["tokenizer"]))

    @property
    def guided_widths(self) -> list[int]:
        """The numbers of channels of the four maps of ``guided_maps``."""
        widths = list(self.backbone.widths)
        if self.config.score_map:
            widths[self.backbone.score_stage] += len(self.config.class_names)
        return widths

    def encode_image(self, pixels: torch.Tensor) -> DenseFeatures:
        return self.backbone(pixels)

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encodes class names.

        Returns:
            ``pooled`` (K, D), the names after the learnt contexts. With pre-model prompting, where the image makes the
            contexts, also the word embeddings of the names as ``tokens`` (K, L, C), and their ``padding_mask`` (K, L).

        Raises:
            ValueError: A name has more than ``name_length`` tokens.
        """
        token_ids = self.tokenizer(prompts)
        length = self.config.name_length
        for prompt, row in zip(prompts, token_ids):
            if row[length:].any():
                raise ValueError(f'the class name "{prompt}" has more than {length} tokens: find a shorter one')
        token_ids = token_ids[:, :length].to(self.contexts.device)
        words = self.text_encoder.token_embedding(token_ids)
        ends = token_ids.argmax(dim=1)
        pooled = self._encode_words(words, ends, self.contexts.expand(words.shape[0], -1, -1))
        if self.config.prompting == "post":
            return TextFeatures(pooled)
        # The test is not "id 0", which is also a piece of the vocabulary.
        padding_mask = torch.arange(length, device=ends.device) > ends[:, None]
        return TextFeatures(pooled, words, padding_mask)

    def guided_maps(
        self, image: DenseFeatures, text: TextFeatures, temperature: float = 1.0
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Returns the backbone's maps, one of them with the score map, and the score map (B, K, h, w) of cosines.

        Args:
            image: The features of B images.
            text: The features of all K classes, in their order.
            temperature: What the scores that join the maps are divided by; those that are returned are not.

        Raises:
            ValueError: ``text`` does not have all classes.
        """
        if text.pooled.shape[0] != len(self.class_names):
            raise ValueError(f"all {len(self.class_names)} classes must be asked together, got {text.pooled.shape[0]}")
        texts = self.texts_in_context(image, text)
        scores = torch.einsum("bdhw,bkd->bkhw", F.normalize(image.dense, dim=1), F.normalize(texts, dim=2))
        maps = list(image.maps)
        if self.config.score_map:
            maps[self.backbone.score_stage] = torch.cat([maps[self.backbone.score_stage], scores / temperature], dim=1)
        return maps, scores

    def texts_in_context(self, image: DenseFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns the texts (B, K, D), adapted to the image."""
        batch = image.dense.shape[0]
        if not self.config.context_aware:
            return text.pooled.expand(batch, -1, -1)
        visual = torch.cat([image.pooled[:, :, None], image.dense.flatten(2)], dim=2).transpose(
            1, 2
        )  # (B, 1 + h * w, D)
        if self.config.prompting == "post":
            texts = text.pooled.expand(batch, -1, -1)
            return texts + self.gamma * self.context_decoder(texts, visual)
        contexts = self.context_decoder(self.contexts.expand(batch, -1, -1), visual)  # (B, N, C)
        classes = text.tokens.shape[0]
        words = text.tokens.repeat(batch, 1, 1)
        ends = ((~text.padding_mask).sum(dim=1) - 1).repeat(batch)
        pooled = self._encode_words(words, ends, contexts.repeat_interleave(classes, dim=0))
        return pooled.unflatten(0, (batch, classes))

    def _encode_words(self, words: torch.Tensor, ends: torch.Tensor, contexts: torch.Tensor) -> torch.Tensor:
        """Inserts contexts (K, N, C) after the start token of words (K, L, C); returns (K, D) at the end tokens."""
        tower = self.text_encoder
        x = torch.cat([words[:, :1], contexts.to(words.dtype), words[:, 1:]], dim=1) + tower.positional_embedding
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask))
        rows = torch.arange(x.shape[0], device=x.device)
        return x[rows, ends + contexts.shape[1]] @ tower.text_projection
