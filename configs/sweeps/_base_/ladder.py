"""The rungs of Soft Teacher's ablation, from a teacher that labels once to the whole method, on three seeds.

STAC trains in stages; FixMatch end to end ("E2E"), then with the averaged model as labeler ("E2E + EMA");
then with soft background weights ("+ soft teacher"), and with box jittering, which is the whole method.
"""

axes = dict(seed=[0, 1, 2])
configs = dict(
    stac="../stac/{data}.py",
    fixmatch="../fixmatch/{data}.py",
    fixmatch_ema=dict(config="../fixmatch/{data}.py", options={"model.method.labeler": "teacher"}),
    soft_teacher_no_jitter=dict(
        config="../soft_teacher/{data}.py", options={"model.method.box_selection": "score"}
    ),
    soft_teacher="../soft_teacher/{data}.py",
)
supervised = "../supervised/{data}.py"
