"""Mean Teacher on 2 % of COCO."""

_base_ = "./coco_10.py"

_split = "semi_anns/instances_train2017.1@2"
train_dataloader = dict(
    dataset=dict(
        datasets=[
            {**_base_._labeled, "ann_file": f"{_split}.json"},
            {**_base_._unlabeled, "ann_file": f"{_split}-unlabeled.json"},
        ]
    )
)
