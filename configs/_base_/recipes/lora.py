# What the recipes with low-rank adapters (LoRA) share: the backbone is frozen but for these.
backbone_lora = dict(adapt=dict(type='lora', r=16, alpha=32))
# Five times that of full tuning. For language models, ten times was found best (Schulman et al.,
# "LoRA Without Regret", 2025).
lr_lora = 2e-4
total_batch = 16  # images of an iteration, on any number of GPUs
