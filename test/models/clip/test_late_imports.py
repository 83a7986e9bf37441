# SPDX-License-Identifier: Apache-2.0
"""What other libraries import for parts that are not used here comes when somebody uses those parts."""

import subprocess
import sys

import pytest
import torch

from clip_seg_ros.models.clip.late_imports import put_off

SERVED = """
import sys
import numpy as np
from clip_seg_ros.pipeline.predictor import Predictor

predictor = Predictor.from_name("{}", "cpu", engine="eager")
predictor.predict(np.zeros((48, 64, 3), np.uint8), predictor.spec.class_names or ("red cup",))
print(*(name for name in ("transformers", "timm", "torch._dynamo") if name in sys.modules))
"""


@pytest.mark.parametrize("model", ["clipseg-pocket", "cris-pocket", "denseclip-pocket", "maskclip-pocket"])
def test_a_model_is_served_without_what_takes_seconds_to_import(model):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SERVED.format(model)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


def test_a_member_is_imported_when_it_is_used(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("class Thing:\n    size = 3\n\ndef double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    with put_off("slow_to_import"):
        from slow_to_import import Thing, double
    assert "slow_to_import" not in sys.modules
    assert double(2) == 4
    assert Thing.size == 3
    assert "slow_to_import" in sys.modules


def test_what_is_there_already_stays():
    import json

    with put_off("json"):
        import json as again
    assert again is json


def test_the_names_are_free_again_after_a_fault():
    def fail():
        with put_off("no_such_module"):
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - the test's own
        fail()
    with pytest.raises(ModuleNotFoundError):
        import no_such_module  # noqa: F401


def test_image_towers_of_timm_can_still_be_built_by_open_clip():
    from open_clip.timm_model import TimmModel

    tower = TimmModel("resnet10t", embed_dim=8, pretrained=False).eval()
    assert tower(torch.zeros(1, 3, 64, 64)).shape == (1, 8)


def test_text_towers_of_transformers_can_still_be_built_by_open_clip():
    from open_clip.hf_model import HFTextEncoder
    from transformers import BertConfig

    config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    tower = HFTextEncoder("none", 8, config=config, pooler_type="mean_pooler", proj_type="linear").eval()
    assert tower(torch.ones(2, 5, dtype=torch.int64)).shape == (2, 8)
