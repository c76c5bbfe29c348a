# The name that version 1.0.0 gave to the recipe in the file below.
_base_ = './upernet_intern_vit_6b_504_80k_cocostuff164k_bs16_lr4e-5.py'
