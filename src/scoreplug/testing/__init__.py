"""Tools that tests of components share: ours, and those of plugins."""

from scoreplug.testing.affine import affine_moments as affine_moments

__all__ = ["affine_moments"]
