"""Feature maps of a frozen backbone on disk: a record, shards of records, a folder of shards.

    FEATURE_CACHE_DIR/
      3f2a9c1be07d4410/             a cache; named by the SHA-256 of what it holds (key.json)
        key.json                    weights, settings, pipeline, list of images, layout of a record
        view00_00000.safetensors    the first records of view 0: feature maps, labels, checksums
        view00_00001.safetensors
        view01_00000.safetensors
        view01_00001.safetensors.part   only while it is written, or after a kill
        checked.json                shards whose checksums were right, by size, time and inode
        lock                        nothing in it; its bytes are locked, one a shard

It knows torch alone; :mod:`mmseg_custom.engine.cached` computes what it holds and trains on it.
"""
from .folder import FeatureCache, Shard
from .layout import RecordLayout

__all__ = ['FeatureCache', 'RecordLayout', 'Shard']
