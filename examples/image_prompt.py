# SPDX-License-Identifier: Apache-2.0
"""An example image as a prompt: python image_prompt.py [EXAMPLE MASK PICTURE]

EXAMPLE shows the thing, MASK is white where it is, and PICTURE is searched for the like of it. No word names the thing.
The defaults are pictures of the rendered table, which is all that the model used here knows.
"""

import sys
from pathlib import Path

import cv2

from clip_seg_ros.api import Predictor, Question, answer

table = Path(__file__).parent / "table"
defaults = [table / "example.jpg", table / "example_mask.png", table / "color.jpg"]
example_path, mask_path, picture_path = sys.argv[1:4] if len(sys.argv) == 4 else defaults

example = cv2.cvtColor(cv2.imread(str(example_path)), cv2.COLOR_BGR2RGB)
mask = cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE) > 127
picture = cv2.cvtColor(cv2.imread(str(picture_path)), cv2.COLOR_BGR2RGB)

predictor = Predictor.from_name("clipseg-pocket")
predictor.add_image_prompt("my thing", example, mask)  # text="cup" would mix the example with a word
found = answer(predictor, predictor.encode(picture), Question(("my thing",)))
for region in found.regions:
    x_px, y_px = region.centroid_px
    print(f"my thing: score {region.score:.2f}, centroid ({x_px:.0f}, {y_px:.0f}) px, {region.area_px} pixels")
