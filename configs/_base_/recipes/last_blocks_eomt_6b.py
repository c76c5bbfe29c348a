# Last blocks of InternViT-6B: eomt_6b.py with the blocks frozen that no query passes.
_base_ = ['./eomt_6b.py', './last_blocks.py']

model = dict(backbone={{_base_.backbone_last}})
