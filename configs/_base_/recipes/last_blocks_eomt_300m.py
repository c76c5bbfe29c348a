# Last blocks of InternViT-300M: eomt_300m.py with the blocks frozen that no query passes.
_base_ = ['./eomt_300m.py', './last_blocks.py']

model = dict(backbone={{_base_.backbone_last}})
