# Your own data at 504x504 crops, as a YAML file describes it: docs/custom_dataset.md. A config that
# builds on this one says where the file is, and the number of classes of the heads.
_base_ = './crops_504x504.py'

dataset_type = 'DescribedDataset'
description = 'data/own/dataset.yaml'
validation = dict(
    type=dataset_type, description=description, part='val', pipeline={{_base_.test_pipeline}})
data = dict(
    train=dict(
        type=dataset_type,
        description=description,
        part='train',
        pipeline={{_base_.train_pipeline}}),
    val=validation,
    test=validation)
