"""The mask kernel where the weights are: finds the lowest scores by counting, without a sort.

It makes the same choice as `keep_masks`. Scores become int32 keys in the same order, and the k-th
lowest key is found by bisection: 32 times, all keys up to a middle one are counted. Of equal keys
the first ones are kept, up to a position that is bisected too. Nothing is sorted, scattered or
flattened, so under a sharded layout devices exchange single numbers, and no weights. The host reads
counts and thresholds.

`keys` has the units that may go, `counting` the passes over keys, `choosing` what ties them
together; `pooling` is for units of several weights; `requests` is what scopes see.
"""

from tfprune.masks.device.choosing import DeviceMask as DeviceMask
from tfprune.masks.device.choosing import DeviceScores as DeviceScores
from tfprune.masks.device.choosing import check_device_scores as check_device_scores
from tfprune.masks.device.choosing import keep_device_masks as keep_device_masks
from tfprune.masks.device.requests import DeviceRequest as DeviceRequest
from tfprune.masks.device.requests import PooledRequest as PooledRequest
