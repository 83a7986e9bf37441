# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from clip_seg_ros.runtime.devices import require_precision, resolve_device


@pytest.mark.parametrize("name", ["gpu", "tpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1:2", "CPU", ""])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=f'unknown device "{name}": use auto, cpu'):
        resolve_device(name)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r'"cuda:63" is not available: torch sees .* use auto or cpu'):
        resolve_device("cuda:63")


def test_auto_takes_cuda_where_there_is_one():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


def test_an_unknown_precision_is_refused():
    assert require_precision("bfloat16") is torch.bfloat16
    with pytest.raises(ValueError, match='unknown precision "half": use float32 or bfloat16 or float16'):
        require_precision("half")
