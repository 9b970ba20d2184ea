"""Sweeps on COCO, 10 % labeled: the published schedules, eight GPUs and up to three days a run."""

data = "coco_10"
gpus = 8
slurm = dict(time=3 * 24 * 60)
