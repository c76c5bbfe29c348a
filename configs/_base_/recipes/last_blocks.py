# What the recipes that train the last blocks share. The blocks before them are frozen.
backbone_last = dict(train_last=4)
total_batch = 16  # images of an iteration, on any number of GPUs
