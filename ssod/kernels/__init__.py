"""torchvision's kernels in the place of mmcv's compiled operations, where mmcv has none.

mmcv's wheels on PyPI carry no compiled extension: `import mmcv.ops`, and `import mmdet.models` with
it, fail on the missing module `mmcv._ext`. `install()` puts a module there that offers the
operations detectors are made of, with mmcv's signatures: results are written into the buffers that
mmcv's wrappers hand over. A compiled mmcv, where there is one, is left alone.

Every kernel computes in float32 (float64 stays) with autocast off and rounds its result to the
caller's type. torchvision's kernels know no bfloat16, and in float16 a coordinate near 400 is off
by up to an eighth of a pixel; the price is a float32 copy of the features.
"""

from .install import EXTENSION, active, install, quiet_imports

__all__ = ["EXTENSION", "active", "install", "quiet_imports"]
