"""The components of this distribution. Nothing is imported until it is built."""

from __future__ import annotations

from collections.abc import Iterable

from scoreplug import OperatorSpec, hookimpl

_TOOLBOX = "doi:10.1364/OE.24.025129"  # van Aarle, Palenstijn, Cant, Janssens, Bleichrodt, ... (2016)
_JOSEPH = "doi:10.1109/TMI.1982.4307572"  # Joseph (1982)


@hookimpl
def scoreplug_components() -> Iterable[OperatorSpec]:
    yield OperatorSpec(
        name="astra-parallel",
        summary="Parallel-beam line integrals of the ASTRA toolbox, in lengths",
        factory="scoreplug_astra.parallel:ParallelBeam",
        references=(_TOOLBOX,),
        example={"image_shape": (1, 6, 6), "angles": 3, "pinv_tolerance": 1e-13},
        provides=("linear", "pinv"),
    )
    yield OperatorSpec(
        name="astra-fan",
        summary="Fan-beam line integrals of the ASTRA toolbox: flat detector, source on a circle",
        factory="scoreplug_astra.fan:FanBeam",
        references=(_TOOLBOX,),
        example={
            "image_shape": (1, 6, 6),
            "angles": 3,
            "source_origin": 20.0,
            "origin_detector": 10.0,
            "pinv_tolerance": 1e-13,
        },
        provides=("linear", "pinv"),
    )
    yield OperatorSpec(
        name="astra-parallel3d",
        summary="Parallel-beam line integrals of a volume, in the geometry of the ASTRA toolbox",
        factory="scoreplug_astra.parallel3d:ParallelBeam3D",
        references=(_TOOLBOX, _JOSEPH),
        example={"image_shape": (1, 2, 4, 4), "angles": 3, "pinv_tolerance": 1e-13},
        provides=("linear", "pinv"),
    )
    yield OperatorSpec(
        name="astra-cone",
        summary="Cone-beam line integrals of a volume, source on a circle, in the geometry of the ASTRA toolbox",
        factory="scoreplug_astra.cone:ConeBeam",
        references=(_TOOLBOX, _JOSEPH),
        example={
            "image_shape": (1, 3, 4, 4),
            "angles": 3,
            "source_origin": 20.0,
            "origin_detector": 10.0,
            "pinv_tolerance": 1e-13,
        },
        provides=("linear", "pinv"),
    )
