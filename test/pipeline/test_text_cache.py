# SPDX-License-Identifier: Apache-2.0
import threading

import pytest
import torch

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.pipeline.text_cache import TextCache


class LetterEncoder:
    """Encodes a prompt by the codes of its letters, and remembers what it was asked."""

    def __init__(self, with_tokens=True):
        self.calls = []
        self.with_tokens = with_tokens

    def __call__(self, prompts):
        self.calls.append(tuple(prompts))
        codes = torch.tensor([[ord(letter) for letter in prompt.ljust(5)] for prompt in prompts], dtype=torch.float32)
        if not self.with_tokens:
            return TextFeatures(codes)
        return TextFeatures(codes, codes[:, :, None] * torch.ones(3), codes == ord(" "))


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("pooled", "tokens", "padding_mask"))


def test_features_come_in_the_order_asked():
    cache = TextCache(LetterEncoder())
    cache(["cup", "bowl"])
    for prompts in (["bowl", "cup"], ["box", "cup", "ball"], ["cup", "cup"]):
        assert same(cache(prompts), LetterEncoder()(prompts))


def test_only_missing_prompts_are_encoded_and_in_one_call():
    encode = LetterEncoder()
    cache = TextCache(encode)
    cache(["cup", "bowl", "cup"])
    cache(["bowl", "cup"])
    cache(["box", "cup", "ball"])
    assert encode.calls == [("cup", "bowl"), ("box", "ball")]


def test_the_prompt_unused_for_longest_goes_first():
    encode = LetterEncoder()
    cache = TextCache(encode, capacity=2)
    for prompt in ("cup", "bowl", "cup", "box", "cup", "bowl"):
        cache([prompt])
    assert encode.calls == [("cup",), ("bowl",), ("box",), ("bowl",)]


def test_more_prompts_than_capacity_are_answered():
    prompts = ["a", "b", "c", "d"]
    assert same(TextCache(LetterEncoder(), capacity=1)(prompts), LetterEncoder()(prompts))


def test_what_a_model_leaves_out_stays_out():
    features = TextCache(LetterEncoder(with_tokens=False))(["cup", "bowl"])
    assert features.tokens is None
    assert features.padding_mask is None


def test_a_failed_encoding_leaves_the_cache_as_it_was():
    encode = LetterEncoder()
    cache = TextCache(encode)
    cache(["cup"])
    with pytest.raises(ValueError, match="expected sequence of length"):
        cache(["bowl", "longer than five letters"])
    assert same(cache(["cup", "bowl"]), LetterEncoder()(["cup", "bowl"]))


def test_a_capacity_below_one_is_refused():
    with pytest.raises(ValueError, match="capacity of 0"):
        TextCache(LetterEncoder(), capacity=0)


def test_threads_share_it():
    cache = TextCache(LetterEncoder(), capacity=3)
    wrong = []

    def ask(offset):
        for i in range(200):
            prompts = [f"p{(offset + i) % 7}", f"p{(offset * i) % 5}"]
            if not same(cache(prompts), LetterEncoder()(prompts)):
                wrong.append(prompts)

    threads = [threading.Thread(target=ask, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_list_that_is_asked_again_is_not_joined_again():
    cache = TextCache(LetterEncoder())
    joined = cache(["cup", "bowl"])
    other = cache(["bowl", "cup"])
    assert cache(["cup", "bowl"]) is joined
    assert cache(["bowl", "cup"]) is other


def test_a_list_follows_what_its_prompts_mean():
    cache, meant = TextCache(LetterEncoder()), LetterEncoder()
    prompts = ["cup", "bowl"]
    cache(prompts)
    for example in ("box", "ball"):
        pinned = meant([example])
        cache.pin("bowl", pinned)
        found = cache(prompts)
        assert same(found, meant(["cup", example]))
        assert cache(prompts) is found
    cache.unpin("bowl")
    assert same(cache(prompts), meant(prompts))


def test_a_list_is_right_when_its_prompts_were_dropped():
    cache, prompts = TextCache(LetterEncoder(), capacity=2), ["cup", "bowl"]
    for other in (["box"], ["ball", "can"]):
        cache(prompts)
        cache(other)
        assert same(cache(prompts), LetterEncoder()(prompts))


def test_few_lists_are_kept():
    cache = TextCache(LetterEncoder())
    joined = cache(["cup", "bowl"])
    for number in range(40):
        cache([f"p{number}", "cup"])
    again = cache(["cup", "bowl"])
    assert again is not joined
    assert same(again, joined)
