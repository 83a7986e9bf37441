# SPDX-License-Identifier: Apache-2.0
"""Folds batch normalisation into the convolutions before it: inference then saves a pass over memory for each."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(model: nn.Module) -> int:
    """Folds in place every ``BatchNorm2d`` that is registered directly after a ``Conv2d``, as in all models here.

    The outputs stay the same up to rounding. Afterwards the model is for inference only, and its weights are no longer
    those of its file.

    Args:
        model: A model in evaluation mode and single precision.

    Returns:
        The number of folded layers.
    """
    count, before = 0, ("", None)
    for name, child in list(model.named_children()):
        # Subclasses are left alone: timm has one that is also an activation.
        if type(child) is nn.BatchNorm2d and type(before[1]) is nn.Conv2d:
            setattr(model, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(model, name, nn.Identity())
            count += 1
        else:
            count += fold_batch_norms(child)
        before = (name, child)
    return count
