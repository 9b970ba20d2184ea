"""Semi-supervised object detection on mmdet; importing this package is cheap and silent."""

__version__ = "0.1.0"
