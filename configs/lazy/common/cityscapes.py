# Cityscapes fine, 8 classes, with batches that depend on train.seed and the iteration alone (exact --resume).
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper, get_detection_dataset_dicts
from omegaconf import OmegaConf

from gan_plugin.engine.train_loader import checked_test_loader, resumable_train_loader, training_records
from gan_plugin.evaluation.build import official_evaluator

dataloader = OmegaConf.create()

dataloader.train = L(resumable_train_loader)(
    dataset=L(training_records)(names="cityscapes_fine_instance_seg_train"),
    mapper=L(DatasetMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(
                short_edge_length=(800, 832, 864, 896, 928, 960, 992, 1024),
                sample_style="choice",
                max_size=2048,
            ),
            L(T.RandomFlip)(horizontal=True),
        ],
        image_format="BGR",
        use_instance_mask=True,
    ),
    total_batch_size=8,
    num_workers=4,
    seed="${train.seed}",
)

dataloader.test = L(checked_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="cityscapes_fine_instance_seg_val", filter_empty=False),
    mapper=L(DatasetMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=1024, max_size=2048)],
        image_format="${...train.mapper.image_format}",
    ),
    num_workers=4,
)

# The official Cityscapes AP and COCO's.
dataloader.evaluator = L(official_evaluator)(
    dataset_name="${..test.dataset.names}",
    output_folder="${train.output_dir}/inference",
)
