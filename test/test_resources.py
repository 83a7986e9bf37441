# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from clip_seg_ros import resources
from clip_seg_ros.models.clip.tokenizer import ClipTokenizer
from clip_seg_ros.resources import class_list, class_list_names

CLONE = Path(__file__).parents[1]
LAYOUTS = Path(__file__).parent / "data" / "layouts"
SIZES = {"ade20k": 150, "cityscapes19": 19, "coco_stuff171": 171, "pascal_context59": 59, "voc20": 20}
# Of every list the first, the last and some that a slip would move.
PLACES = {
    "ade20k": {0: "wall", 7: "bed", 44: "chest of drawers", 105: "conveyer belt", 141: "crt screen", 149: "flag"},
    "cityscapes19": {0: "road", 8: "vegetation", 12: "rider", 18: "bicycle"},
    "coco_stuff171": {0: "person", 79: "toothbrush", 80: "banner", 133: "playingfield", 170: "wood"},
    "pascal_context59": {0: "aeroplane", 29: "ground", 39: "pottedplant", 58: "wood"},
    "voc20": {0: "aeroplane", 10: "diningtable", 19: "tvmonitor"},
}


def make_share(folder: Path) -> Path:
    """Lays out what an installation puts into its share folder."""
    for name in ("config", "weights"):
        (folder / name).mkdir(parents=True)
    (folder / "package.xml").touch()
    return folder


def make_prefix(prefix: Path) -> Path:
    make_share(prefix / "share" / "clip_seg_ros")
    return prefix


@pytest.fixture
def module_at(monkeypatch: pytest.MonkeyPatch):
    """Pretends that the package lies in a folder, with no ROS 2 sourced and an empty Python prefix."""

    def place(package: Path) -> None:
        monkeypatch.setattr(resources, "__file__", str(package / "resources.py"))

    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    monkeypatch.delenv("CLIP_SEG_WEIGHTS_DIR", raising=False)
    monkeypatch.setattr(sys, "prefix", "/nonexistent")
    return place


def test_a_clone_wins_over_a_sourced_workspace(tmp_path: Path, module_at, monkeypatch) -> None:
    clone = make_share(tmp_path / "clone")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(make_prefix(tmp_path / "workspace")))
    module_at(clone / "clip_seg_ros")

    assert resources.share_dir() == clone
    assert resources.config_dir() == clone / "config"
    assert resources.weights_dir() == clone / "weights"


def test_a_workspace_wins_over_a_python_prefix(tmp_path: Path, module_at, monkeypatch) -> None:
    workspace, python = make_prefix(tmp_path / "workspace"), make_prefix(tmp_path / "python")
    other = tmp_path / "other_ros_package"
    module_at(python / "lib/python3.12/site-packages/clip_seg_ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{other}:{workspace}")

    assert resources.share_dir() == workspace / "share/clip_seg_ros"


@pytest.mark.parametrize("site_packages", ["lib/python3.12/site-packages", "lib/python3/dist-packages"])
def test_a_pip_installation_is_found_from_where_it_lies(tmp_path: Path, module_at, site_packages: str) -> None:
    module_at(make_prefix(tmp_path) / site_packages / "clip_seg_ros")

    assert resources.share_dir() == tmp_path / "share/clip_seg_ros"


def test_a_pip_installation_is_found_in_the_python_prefix(tmp_path: Path, module_at, monkeypatch) -> None:
    module_at(tmp_path / "elsewhere" / "clip_seg_ros")
    monkeypatch.setattr(sys, "prefix", str(make_prefix(tmp_path / "python")))

    assert resources.share_dir() == tmp_path / "python/share/clip_seg_ros"


def test_nothing_found_says_where_it_looked(tmp_path: Path, module_at, monkeypatch) -> None:
    module_at(tmp_path / "clip_seg_ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "workspace"))

    with pytest.raises(FileNotFoundError, match=r"setup.bash") as error:
        resources.share_dir()

    assert str(tmp_path / "workspace/share/clip_seg_ros") in str(error.value)


def test_a_half_installed_package_says_so(tmp_path: Path, module_at) -> None:
    make_share(tmp_path)
    (tmp_path / "weights").rmdir()
    module_at(tmp_path / "clip_seg_ros")

    with pytest.raises(FileNotFoundError, match="install it again"):
        resources.weights_dir()


def test_the_variable_names_the_weights(tmp_path: Path, module_at, monkeypatch) -> None:
    module_at(make_share(tmp_path / "clone") / "clip_seg_ros")
    monkeypatch.setenv("CLIP_SEG_WEIGHTS_DIR", str(tmp_path))

    assert resources.weights_dir() == tmp_path


def test_a_variable_that_names_no_folder_is_an_error(tmp_path: Path, module_at, monkeypatch) -> None:
    module_at(make_share(tmp_path / "clone") / "clip_seg_ros")
    monkeypatch.setenv("CLIP_SEG_WEIGHTS_DIR", str(tmp_path / "missing"))

    with pytest.raises(FileNotFoundError, match="CLIP_SEG_WEIGHTS_DIR"):
        resources.weights_dir()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"CLIP_SEG_CACHE_DIR": "/big/weights", "XDG_CACHE_HOME": "/cache"}, "/big/weights"),
        ({"CLIP_SEG_CACHE_DIR": "~/weights"}, "/home/me/weights"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/clip_seg_ros/weights"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/clip_seg_ros/weights"),
        ({}, "/home/me/.cache/clip_seg_ros/weights"),
    ],
)
def test_where_downloaded_weights_are(monkeypatch, variables: dict[str, str], expected: str) -> None:
    for name in ("CLIP_SEG_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)

    assert resources.cache_dir() == Path(expected)


def test_the_real_files_are_there() -> None:
    assert (resources.config_dir() / "referring.yaml").is_file()


def test_it_needs_the_standard_library_only() -> None:
    program = (
        "import sys, importlib.util as u; "
        f"s = u.spec_from_file_location('resources', {str(CLONE / 'clip_seg_ros/resources.py')!r}); "
        "m = u.module_from_spec(s); s.loader.exec_module(m); print(m.share_dir())"
    )

    result = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True)

    assert result.stdout.strip() == str(CLONE), result.stderr


def test_the_lists_are_known_by_name() -> None:
    assert class_list_names() == tuple(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_every_list_has_its_classes_in_order(name: str) -> None:
    classes = class_list(name)
    assert len(classes) == SIZES[name] == len(set(classes))
    assert {place: classes[place] for place in PLACES[name]} == PLACES[name]
    assert all(label == label.strip() and label for label in classes)


def test_names_that_are_no_english_have_words() -> None:
    assert class_list("voc20", asked=True)[0] == "airplane"
    assert class_list("coco_stuff171", asked=True)[-1] == "wood"
    assert class_list("coco_stuff171", asked=True)[84] == "building"
    assert class_list("coco_stuff171")[84] == "building-other"
    assert class_list("ade20k", asked=True) == class_list("ade20k")
    for name in SIZES:
        assert not [label for label in (*class_list(name), *class_list(name, asked=True)) if "=" in label]


def test_an_unknown_list_is_refused() -> None:
    with pytest.raises(ValueError, match=r'no class list "ade": use ade20k, cityscapes19, .*voc20'):
        class_list("ade")


def published(name: str) -> list:
    """Reads what goes with the published DenseCLIP checkpoints and is not in them."""
    return json.loads(gzip.decompress((LAYOUTS / f"{name}.json.gz").read_bytes()))


def test_ade20k_is_spelt_as_in_the_data_set() -> None:
    """One name of the data set ends with a space, which the reader drops: nobody asks for "bed "."""
    text = (resources.config_dir() / "class_lists" / "ade20k.txt").read_text(encoding="utf-8")
    names = published("denseclip_ade20k_class_names")
    assert text.splitlines() == names
    assert "bed " in names
    assert class_list("ade20k") == tuple(name.strip() for name in names)


def test_ade20k_has_the_published_token_ids() -> None:
    ids = ClipTokenizer(context_length=77)(class_list("ade20k"))
    assert not ids[:, 5:].any()
    assert ids[:, :5].tolist() == published("denseclip_ade20k_class_tokens_len5")
