"""From files on disk to clips ready for the network: readers, checks, decoding, sampling, augmentation, loading."""
