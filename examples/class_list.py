# SPDX-License-Identifier: Apache-2.0
"""One class a pixel, of a list of your own: python class_list.py [OUT.png [PICTURE]]

MaskCLIP takes any list of classes. DenseCLIP has the classes that it was trained on: try "denseclip-pocket" and
predictor.spec.class_names. The default is a picture of the rendered table, which is all that both of them know here.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from clip_seg_ros.api import Predictor

CLASSES = ("cup", "box", "bottle", "bowl", "plate", "table")

picture_path = sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parent / "table" / "color.jpg"
rgb = cv2.cvtColor(cv2.imread(str(picture_path)), cv2.COLOR_BGR2RGB)

predictor = Predictor.from_name("maskclip-pocket")
found = predictor.classify(predictor.encode(rgb), CLASSES)
for index, name in enumerate(CLASSES):  # found.labels: (H, W), the place of each pixel's class in CLASSES; 255 is none
    print(f"{name}: {np.mean(found.labels == index):.1%} of the picture")
if len(sys.argv) > 1:
    cv2.imwrite(sys.argv[1], found.labels)
