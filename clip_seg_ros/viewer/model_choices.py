# SPDX-License-Identifier: Apache-2.0
"""The models that there are, as `clip-seg weights list` shows them."""

from __future__ import annotations

from clip_seg_ros import resources
from clip_seg_ros.viewer.views import ModelChoice
from clip_seg_ros.zoo.embedded import EMBEDDED_MODELS, embedded_models
from clip_seg_ros.zoo.public_weights import PUBLIC_WEIGHTS, SUFFIX, file_name

_OWN_LICENCE = "Apache-2.0 (comes with the package; knows the simulated table alone)"


def model_choices() -> tuple[ModelChoice, ...]:
    """Returns the embedded models, those that others published, and those that the user converted."""
    folder = resources.cache_dir()
    embedded, own_folder = [], resources.weights_dir()
    for name in embedded_models():
        sizes = [(own_folder / file).stat().st_size for file in EMBEDDED_MODELS[name].files]
        embedded.append(ModelChoice(name, _OWN_LICENCE, max(1, round(sum(sizes) / 1e6)), True))
    published = [
        ModelChoice(name, entry.licence, entry.megabytes, (folder / file_name(name)).is_file(), entry.page)
        for name, entry in PUBLIC_WEIGHTS.items()
    ]
    known = {file_name(name) for name in PUBLIC_WEIGHTS}
    converted = [
        ModelChoice(path.stem, "that of the file it was converted from", max(1, path.stat().st_size // 10**6), True)
        for path in sorted(folder.glob(f"*{SUFFIX}"))
        if path.name not in known
    ]
    return (*embedded, *published, *converted)
