"""Maps of a frozen backbone on disk: what a record is, shards of them, and the folder they lie in.

    FEATURE_CACHE_DIR/
      3f2a9c1be07d4410/             a cache; named by the SHA-256 of what it holds (key.json)
        key.json                    weights, settings, pipeline, list of images, layout of a record
        view00_00000.safetensors    the first records of view 0: maps, labels, checksums
        view00_00001.safetensors
        view01_00000.safetensors
        view01_00001.safetensors.part   only while it is written, or after a kill
        checked.json                shards whose checksums were right, by size, time and inode
        lock                        nothing in it; its bytes are locked, one a shard

It knows torch and the safe writing of ``checkpoint``; :mod:`mmseg_custom.engine.cached` computes
what it holds and trains on it.
"""
from .folder import FeatureCache, Shard
from .layout import Layout

__all__ = ['FeatureCache', 'Layout', 'Shard']
