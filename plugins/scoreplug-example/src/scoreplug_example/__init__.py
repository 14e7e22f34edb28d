"""A Gaussian likelihood of one variance around the denoised estimate.

Nothing is imported here, so that `scoreplug list` stays quick.
"""
