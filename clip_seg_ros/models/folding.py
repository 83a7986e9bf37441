# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation folded into the convolutions before it, for inference: a pass over memory less for each."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(model: nn.Module) -> int:
    """Folds in place every ``BatchNorm2d`` that is registered right behind a ``Conv2d``, as all models here have them.

    Outputs stay the same but for rounding. The model is for inference alone afterwards, and its weights are not those
    of its file any more.

    Args:
        model: In evaluation mode, in single precision.

    Returns:
        How many were folded.
    """
    count, before = 0, ("", None)
    for name, child in list(model.named_children()):
        # Not its subclasses: timm has one that is an activation too.
        if type(child) is nn.BatchNorm2d and type(before[1]) is nn.Conv2d:
            setattr(model, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(model, name, nn.Identity())
            count += 1
        else:
            count += fold_batch_norms(child)
        before = (name, child)
    return count
