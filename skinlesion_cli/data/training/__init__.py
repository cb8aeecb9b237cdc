"""From a dataset on disk to training batches: the cache of decoded images, the order of an epoch,
augmentation, loader.

Everything random is a function of a seed, an epoch and a position,
so that an interrupted training resumes exactly.
"""

import os

# On import albumentations looks up its newest version on the network, unless this is set.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
