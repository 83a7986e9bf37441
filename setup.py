# SPDX-License-Identifier: Apache-2.0
"""Installs the part of the package that needs no ROS: ``pip install .`` gives the library and ``clip-seg``.

The ROS 2 package, with its nodes and messages, is built by colcon from CMakeLists.txt and does not use this file.
"""

from pathlib import Path

from setuptools import find_packages, setup


def files_below(folder: str) -> list[tuple[str, list[str]]]:
    """Lists ``folder`` as setuptools wants data files: (where they go, which files), one entry a folder."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            found.setdefault(f"share/clip_seg_ros/{path.parent}", []).append(str(path))
    return list(found.items())


setup(
    name="clip_seg_ros",
    version="0.1.0",
    description="Language-guided segmentation for robots: a sentence in, masks and positions out",
    license="Apache-2.0",
    packages=find_packages(include=["clip_seg_ros*"], exclude=["clip_seg_ros.nodes*"]),
    package_data={"clip_seg_ros.viewer": ["page/*"]},
    data_files=[
        ("share/clip_seg_ros", ["package.xml"]),
        *files_below("config"),
        *files_below("msg"),
        *files_below("weights"),
    ],
    python_requires=">=3.10",
    # No upper bounds and no exact pins: a robot often has its vendor's PyTorch.
    install_requires=[
        "torch>=2.1",
        "torchvision>=0.16",
        "open_clip_torch>=3.0",
        "huggingface_hub>=0.23",
        "timm>=1.0",
        "numpy>=1.21",
        "opencv-python-headless>=4.5",
        "safetensors>=0.4",
        "pyyaml>=5.4",
        "tqdm>=4.60",
    ],
    extras_require={
        "sim": ["mujoco>=3.17"],
        "train": ["tensorboard>=2.11"],
        "bags": ["rosbags>=0.11"],
        "coco": ["pycocotools>=2.0.7"],
        "wordnet": ["nltk>=3.8"],
        "sam3": ["transformers>=5.24"],
        "openvino": ["openvino>=2025.0"],
        "sam2": ["transformers>=5.0"],
        "onnxruntime": ["onnxruntime>=1.20"],
        "mcp": ["mcp>=2.3"],
        "ray": ["ray>=2.40", "fsspec>=2024.2"],
        "web": ["viser>=1.1", "starlette>=1.0", "uvicorn>=0.30", "websockets>=13.0", "rosbags>=0.11"],
        "export": ["onnx>=1.17", "onnxscript>=0.5", "openvino>=2025.0", "onnxruntime>=1.20", "nncf>=2.17"],
    },
    entry_points={"console_scripts": ["clip-seg = clip_seg_ros.tools.cli:main"]},
)
