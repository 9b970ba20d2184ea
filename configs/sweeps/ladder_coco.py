"""Soft Teacher's ladder on 10 % of COCO."""

_base_ = ["./_base_/ladder.py", "./_base_/coco.py"]
