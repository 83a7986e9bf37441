# SPDX-License-Identifier: Apache-2.0
"""Who may join which cluster."""

from __future__ import annotations

import pytest

from clip_seg_ros.annotation.ray_joining import RayFailed, RayOptions, Versions, joined

pytest.importorskip("ray", reason="the package ray is not installed")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_named_at_once(address: str) -> None:
    with pytest.raises(RayFailed, match=f"{address} cannot be reached"), joined(RayOptions(address)):
        pass


def test_a_word_that_is_no_address_is_refused() -> None:
    with pytest.raises(RayFailed, match="no address"), joined(RayOptions("cluster")):
        pass


def test_other_versions_are_named() -> None:
    here = Versions.here()

    assert here.difference(here) == ""
    assert here.difference(Versions(here.package, here.python, "0.1")) == f"torch {here.torch} here and 0.1 there"
