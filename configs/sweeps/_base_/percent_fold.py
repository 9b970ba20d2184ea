"""All methods on shares of labeled images, each share on three draws of them."""

axes = dict(
    percent=[5, 10, 20],
    fold=[1, 2, 3],
    method=["stac", "fixmatch", "mean_teacher", "unbiased_teacher", "soft_teacher"],
)
configs = "../{method}/{data}.py"
supervised = "../supervised/{data}.py"
