# SPDX-License-Identifier: Apache-2.0
"""The folder that a run of ``clip-seg annotate`` writes.

    OUT/
      run.json                              the manifest: inputs with hashes, models, parameters, versions, counts
      run_time.json                         how long the last run took
      shards/SOURCE/0000.jsonl              what was found, a file for each stretch of a source; what a run goes on from
      images/SOURCE/000012.jpg              the images that were kept
      labels/SOURCE/000012.png              a class for every pixel: ``kind: labelled_folder``, with classes.txt
      classes.txt
      annotations/instances_default.json    objects as COCO instances: ``kind: coco``
      yolo/                                 images and text files for YOLO-seg, with data.yaml
      phrases.csv, masks/                   a mask for each phrase in each image: ``kind: folder``
      cvat.zip                              images and objects as CVAT imports them
      recordings/SOURCE.mcap                masks and objects with the original stamps
      decisions.jsonl                       what a person decided in the review

``SOURCE`` is the name of a source in the run: the last part of its path, and its topic where it has several, with all
but letters, digits, "-", "_" and "." replaced by "_", made different by a number where two are alike.
"""

from __future__ import annotations

MANIFEST = "run.json"
TIME = "run_time.json"
SHARDS = "shards"
IMAGES = "images"
LABELS = "labels"
CLASSES = "classes.txt"
COCO = "annotations/instances_default.json"
YOLO = "yolo"
CVAT = "cvat.zip"
RECORDINGS = "recordings"
DECISIONS = "decisions.jsonl"
