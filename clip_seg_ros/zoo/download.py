# SPDX-License-Identifier: Apache-2.0
"""Downloads published weights from the Hugging Face hub, complete and unchanged or not at all.

The transfer is that of huggingface_hub, with its progress bar, its cache (``HF_HOME``), its proxies and mirrors
(``HF_ENDPOINT``) and its offline mode (``HF_HUB_OFFLINE``). A broken connection is resumed as long as the program runs.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from clip_seg_ros.models.checkpoints import WeightsError, sha256
from clip_seg_ros.models.clip.backbone import pretrained_clip
from clip_seg_ros.models.clipseg import convert as clipseg
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.models.conversion.reading import read_tensors
from clip_seg_ros.models.maskclip import convert as maskclip
from clip_seg_ros.models.sam3 import convert as sam3
from clip_seg_ros.models.talk2dino import convert as talk2dino
from clip_seg_ros.zoo.formats import convert
from clip_seg_ros.zoo.public_weights import AGAIN, HUB, PUBLIC_WEIGHTS, HubFile, fetched_by_hand, open_clip_tag

_OPTIONS = {"clipseg": clipseg.OPTIONS, "sam3": sam3.USER_OPTIONS, "talk2dino": talk2dino.OPTIONS}
"""The options of the converters, by the kind of weights that are downloaded whole."""
_NO_ACCESS = (401, 403)
ANSWER_S = 10.0
"""The longest time in seconds that the hub may take to respond at all."""


@dataclass(frozen=True)
class Download:
    """A file to download, and how to convert it."""

    hub: HubFile
    page: str
    licence: str
    known_options: frozenset[str]
    """The options of the converter that a user may set."""
    options: dict[str, Any] = field(default_factory=dict)
    """The options that the converter gets for these weights."""
    resnet: bool = False
    """Whether the image tower is a ResNet."""
    normalisation: dict[str, tuple[float, float, float]] | None = None
    """``mean`` and ``std``, if the published model has its own."""


def find(name: str) -> Download:
    """Returns where the weights ``name`` are, without downloading them.

    Raises:
        ValueError: There are no such weights.
        WeightsError: They must be downloaded by hand; the message says how.
    """
    entry = PUBLIC_WEIGHTS.get(name)
    tag = open_clip_tag(name)
    if tag is not None:
        clip = pretrained_clip(tag)
        page = f"{HUB}/{clip.repository}"
        return Download(
            hub=HubFile(clip.repository, clip.files),
            page=page,
            licence=entry.licence if entry else f"see {page}",
            known_options=maskclip.OPTIONS,
            options={
                "quick_gelu": clip.quick_gelu,
                "vision_head_width": clip.vision_head_width,
                "text_head_width": clip.text_head_width,
            },
            resnet=clip.resnet,
            normalisation={"mean": clip.mean, "std": clip.std},
        )
    if entry is None:
        known = ", ".join(PUBLIC_WEIGHTS)
        raise ValueError(f'there are no published weights "{name}": use {known}, or open_clip:ARCHITECTURE/TAG')
    if entry.hub is None:
        raise WeightsError(fetched_by_hand(name))
    return Download(entry.hub, entry.page, entry.licence, _OPTIONS[entry.kind])


def check_options(name: str, download: Download, options: Mapping[str, Any]) -> None:
    """Checks the user's options for the converter before anything is downloaded.

    Raises:
        ValueError: An option is unknown or has a wrong value.
    """
    unknown = sorted(set(options) - download.known_options)
    if unknown:
        known = ", ".join(sorted(download.known_options))
        raise ValueError(f"{name} takes no option {', '.join(unknown)}; it takes {known}")
    if download.known_options == maskclip.OPTIONS:
        maskclip.check_options(options, download.resnet)
    if download.known_options == talk2dino.OPTIONS:
        talk2dino.check_options(options)
    if download.known_options == sam3.USER_OPTIONS:
        sam3.check_options(options)
    if download.known_options == clipseg.OPTIONS:
        clipseg.templates_of(options)


def fetch(hub: HubFile) -> Path:
    """Downloads a weight file, or finds it in the hub's own cache, and compares it with the hub's checksum.

    Raises:
        WeightsError: It cannot be downloaded, or its checksum is wrong; the message says what to do.
    """
    if not constants.HF_HUB_OFFLINE and _cached(hub) is None and not _answers(hub):
        raise WeightsError(_no_answer(hub))
    try:
        path = _transfer(hub)
    except Exception as error:  # whatever the HTTP library below raises, which is another one in each release
        raise WeightsError(_advice(hub, error)) from error
    _check(path, hub)
    return path


def load(download: Download, path: Path, options: Mapping[str, Any] | None = None) -> Converted:
    """Reads and converts a downloaded file; ``options`` override those of the download.

    Raises:
        WeightsError: The file does not hold this model.
        ValueError: An option is unknown.
    """
    origin = f"{download.hub.repository}/{path.name}"
    converted = convert(read_tensors(path), origin, {**download.options, **(options or {})})
    if download.normalisation:
        converted.config[converted.config["kind"]]["input_spec"].update(download.normalisation)
    return converted


def arrived_bytes(hub: HubFile) -> int:
    """Returns how much of a file that is being fetched has arrived; 0 if none is."""
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub.repository, repo_type="model") / "blobs"
    sizes = []
    for part in blobs.glob("*.incomplete"):
        with suppress(OSError):  # complete by now, and under another name
            sizes.append(part.stat().st_size)
    return max(sizes, default=0)


def _advice(hub: HubFile, error: Exception) -> str:
    """Returns what went wrong with a download, and what to do."""
    page = f"{HUB}/{hub.repository}"
    if _lacks_access(hub, error):
        name = next((name for name, entry in PUBLIC_WEIGHTS.items() if entry.hub == hub), "NAME")
        return (
            f"{hub.repository} is given only to those who accepted its licence: accept it on {page}, log in on this "
            f"machine with `hf auth login`, and type `clip-seg weights download {name}` again"
        )
    if isinstance(error, LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            return (
                f"HF_HUB_OFFLINE is set, and {hub.repository} is not in the cache {constants.HF_HUB_CACHE}: unset it, "
                "or copy that folder from a machine that has it"
            )
        return _no_answer(hub)
    if isinstance(error, EntryNotFoundError | RepositoryNotFoundError | RevisionNotFoundError):
        return (
            f"{page} is gone, has moved, wants a login or no longer holds {' or '.join(hub.files)}: see the page; if "
            f"it has moved, {_by_hand('there')}"
        )
    if isinstance(error, HfHubHTTPError):
        return f"{constants.ENDPOINT} refuses {hub.repository} ({error}): try later; or {_by_hand(page)}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {constants.HF_HUB_CACHE} is full: make room, or name a folder on another disk with HF_HOME"
    if isinstance(error, OSError):
        return f"{hub.repository} was not downloaded ({error}): {AGAIN}"
    return (
        f"the download of {hub.repository} broke off ({type(error).__name__}: {error}): check the network and {AGAIN}"
    )


def _lacks_access(hub: HubFile, error: Exception) -> bool:
    # huggingface_hub takes a bare 403 for no answer.
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if isinstance(cause, GatedRepoError):
        return True
    refused = isinstance(cause, HfHubHTTPError) and cause.response.status_code in _NO_ACCESS
    return hub.gated and (refused or isinstance(cause, RepositoryNotFoundError))


def _no_answer(hub: HubFile) -> str:
    return (
        f"{constants.ENDPOINT} gives no answer for {hub.repository}, and the cache {constants.HF_HUB_CACHE} does not "
        f"hold it: check the network (a proxy is named with HTTPS_PROXY) and {AGAIN}; or "
        f"{_by_hand(f'{HUB}/{hub.repository}')}"
    )


def _by_hand(where: str) -> str:
    return f"fetch the file from {where} with a browser, and type `clip-seg weights convert FILE --name NAME`"


def _transfer(hub: HubFile) -> Path:
    missing = None
    for file in hub.files:
        try:
            return Path(hf_hub_download(hub.repository, file))
        except LocalEntryNotFoundError:  # no answer: another of the files may be in the cache
            found = _cached(hub)
            if found is None:
                raise
            return found
        except EntryNotFoundError as error:
            missing = error
    raise missing


def _cached(hub: HubFile) -> Path | None:
    """Returns the file if it is in the hub's own cache, else ``None``."""
    cached = (try_to_load_from_cache(hub.repository, file) for file in hub.files)
    return next((Path(path) for path in cached if isinstance(path, str)), None)


def _answers(hub: HubFile) -> bool:
    """Returns whether the hub responds at all. It tries once, while huggingface_hub retries for half a minute."""
    try:
        get_hf_file_metadata(hf_hub_url(hub.repository, hub.files[0]), timeout=ANSWER_S)
    except HfHubHTTPError:  # an answer, which the transfer will meet again
        return True
    except Exception:  # whatever the HTTP library below raises, which is another one in each release
        return False
    return True


def _check(path: Path, hub: HubFile) -> None:
    # In the hub's cache, a file is a link to a file whose name is the SHA-256 that the hub states.
    blob = path.parent / os.readlink(path) if path.is_symlink() else path
    if not re.fullmatch(r"[0-9a-f]{64}", blob.name):
        raise WeightsError(
            f"the hub states no SHA-256 of {hub.repository}/{path.name}, or the disk of {constants.HF_HUB_CACHE} "
            "cannot hold links: the file is not used. Name a folder on a Linux file system with HF_HOME"
        )
    found = sha256(path)
    if found != blob.name:
        for part in (path.resolve(), blob, path):
            part.unlink(missing_ok=True)
        raise WeightsError(
            f"{hub.repository}/{path.name} was damaged or changed on its way: the hub states SHA-256 {blob.name}, and "
            f"the file has {found}. It was removed; {AGAIN}"
        )
