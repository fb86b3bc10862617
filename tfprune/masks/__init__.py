"""Masks: weight + sparsity + pattern + criterion -> the weights to keep.

`requests` scores units, and `selection` finds the lowest scores.
"""

from tfprune.masks.bits import Bits as Bits
from tfprune.masks.computing import compute_mask as compute_mask
from tfprune.masks.computing import kept_count as kept_count
from tfprune.masks.device import DeviceMask as DeviceMask
from tfprune.masks.device import DeviceRequest as DeviceRequest
from tfprune.masks.device import PooledRequest as PooledRequest
from tfprune.masks.device import keep_device_masks as keep_device_masks
from tfprune.masks.groups import masks_in_groups as masks_in_groups
from tfprune.masks.normalization import NORMALIZATIONS as NORMALIZATIONS
from tfprune.masks.normalization import normalized as normalized
from tfprune.masks.projecting import is_masked as is_masked
from tfprune.masks.projecting import write_masked as write_masked
from tfprune.masks.requests import Competitor as Competitor
from tfprune.masks.requests import MaskRequest as MaskRequest
from tfprune.masks.requests import Request as Request
from tfprune.masks.requests import masks_with_zeros as masks_with_zeros
from tfprune.masks.requests import rounded as rounded
from tfprune.masks.selection import Scores as Scores
from tfprune.masks.selection import Workers as Workers
from tfprune.masks.selection import as_comparable as as_comparable
from tfprune.masks.selection import keep_masks as keep_masks
from tfprune.masks.selection import raise_not_finite as raise_not_finite
