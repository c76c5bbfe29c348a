"""Names and defaults that command lines offer; what they mean is said where they are used.

The standard library alone: the tools read this file without the package, whose import takes
seconds.
"""
ENGINES = ('auto', 'single', 'ddp', 'fsdp2')
UNTRAINED = 'none'  # in the place of a checkpoint

MMSEG_METRICS = ('mIoU', 'mDice', 'mFscore')
BOUNDARY = 'mBIoU'
CITYSCAPES = 'cityscapes'  # a metric of that data set alone

SWEPT_HEADS = ('linear', 'upernet')

PATIENCE = 120  # seconds that a run waits for room for its last checkpoint
PATIENCE_BEFORE_SPARE = 10  # seconds, where there is a spare folder

WEIGHT_FORMS = ('pth', 'safetensors', 'hf')
SHARD_BYTES = 4 * 10**9

FEW_SHOT_PARTS = ('1/16', '1/8', '1/4', '1/2')
FEW_SHOT_SEEDS = range(5)
