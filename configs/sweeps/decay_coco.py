"""The teacher's decay on 10 % of COCO: around the published 0.999."""

_base_ = ["./_base_/decay.py", "./_base_/coco.py"]

axes = dict(decay=[0.99, 0.997, 0.999, 0.9997, 0.9999])
