"""Soft Teacher's ladder on BCCD."""

_base_ = ["./_base_/ladder.py", "./_base_/bccd.py"]
