# eomt_intern_vit_6b.py at the sizes of intern_vit_300m.py.
_base_ = ['./eomt_intern_vit_6b.py', './intern_vit_300m.py']

model = {{_base_.eomt_300m}}
