# SPDX-License-Identifier: Apache-2.0
"""Small things in a large image, through overlapping windows: python sliding_window.py ["red cup" [OUT.png [PICTURE]]]

A model sees every image at its own small size. Through windows it sees each part of a large image as large as it can.
The default is a large picture of the rendered table, which is all that the model used here knows.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from clip_seg_ros.api import Predictor, SlidingWindow, window_boxes

phrase = sys.argv[1] if len(sys.argv) > 1 else "red cup"
picture_path = sys.argv[3] if len(sys.argv) > 3 else Path(__file__).parent / "table" / "large.jpg"
rgb = cv2.cvtColor(cv2.imread(str(picture_path)), cv2.COLOR_BGR2RGB)

predictor = Predictor.from_name("clipseg-pocket")
whole = predictor.predict(rgb, [phrase]).values[0] > 0.5

boxes = window_boxes(rgb.shape[:2], SlidingWindow(crop=600, stride=400))
crops = [rgb[top:bottom, left:right] for top, left, bottom, right in boxes]
total, count = np.zeros(rgb.shape[:2]), np.zeros(rgb.shape[:2])
for (top, left, bottom, right), maps in zip(boxes, predictor.predict_batch(crops, [phrase]), strict=True):
    total[top:bottom, left:right] += maps.values[0]
    count[top:bottom, left:right] += 1
mask = total / count > 0.5  # where windows overlap, their probabilities are averaged

print(f"{phrase}: {whole.sum()} pixels in the image as a whole, {mask.sum()} through {len(boxes)} windows")
if len(sys.argv) > 2:
    cv2.imwrite(sys.argv[2], mask.astype(np.uint8) * 255)
