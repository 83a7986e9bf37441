# SPDX-License-Identifier: Apache-2.0
"""From a phrase to a position in metres: python phrase_to_metres.py ["red cup"] [FOLDER]

FOLDER holds color.jpg, depth.png (16 bits, millimetres, aligned with the colour) and camera.yaml, as ROS's camera
calibration writes it. The default is the rendered table beside this file, which is all that the model used here knows;
for your own pictures, type `clip-seg weights download clipseg-rd64-refined` and use that name below.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import yaml

from clip_seg_ros.api import CameraFrame, CameraIntrinsics, Predictor, Question, answer, with_position

phrase = sys.argv[1] if len(sys.argv) > 1 else "red cup"
folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "table"

rgb = cv2.cvtColor(cv2.imread(str(folder / "color.jpg")), cv2.COLOR_BGR2RGB)
depth_mm = cv2.imread(str(folder / "depth.png"), cv2.IMREAD_UNCHANGED)
depth_m = np.where(depth_mm > 0, depth_mm / 1000, np.nan).astype(np.float32)  # 0 says that nothing was measured
camera = yaml.safe_load((folder / "camera.yaml").read_text())
fx, _, cx, _, fy, cy, *_ = camera["camera_matrix"]["data"]
intrinsics = CameraIntrinsics(fx, fy, cx, cy, camera["image_width"], camera["image_height"])
frame = CameraFrame(rgb, stamp_ns=0, frame_id="camera", depth_m=depth_m, intrinsics=intrinsics)

predictor = Predictor.from_name("clipseg-pocket")
found = answer(predictor, predictor.encode(rgb), Question((phrase,)))
for region in found.regions:
    x_px, y_px = region.centroid_px
    print(f"{phrase}: score {region.score:.2f}, centroid ({x_px:.0f}, {y_px:.0f}) px")
    if (position_m := with_position(region, frame).position_m) is not None:
        print("position in metres (right, down, forward): {:.3f} {:.3f} {:.3f}".format(*position_m))
if not found.regions:
    print(f"{phrase}: not found")
