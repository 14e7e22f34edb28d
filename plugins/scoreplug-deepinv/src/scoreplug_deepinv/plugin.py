"""What this distribution adds to scoreplug. Nothing heavy is imported until a component is built."""

from __future__ import annotations

from collections.abc import Iterable

from scoreplug import ComponentSpec, ModelSpec, OperatorSpec, hookimpl

_DEEPINV = "arXiv:2505.20160"  # Tachella et al.: DeepInverse (2025)


@hookimpl
def scoreplug_components() -> Iterable[ComponentSpec]:
    yield OperatorSpec(
        name="deepinv",
        summary="A LinearPhysics of deepinv, by name or object, with its adjoint",
        factory="scoreplug_deepinv.operators:DeepinvOperator",
        references=(_DEEPINV,),
        provides=("linear",),
        example={"physics": "Inpainting", "params": {"img_size": (1, 4, 4), "mask": 0.5}, "image_shape": (1, 4, 4)},
    )
    yield OperatorSpec(
        name="deepinv-svd",
        summary="A DecomposablePhysics of deepinv whose decomposition is one, with inverse and solves",
        factory="scoreplug_deepinv.operators:DeepinvSVD",
        references=(_DEEPINV,),
        provides=("linear", "pinv", "svd"),
        example={"physics": "Inpainting", "params": {"img_size": (1, 4, 4), "mask": 0.5}, "image_shape": (1, 4, 4)},
    )
    yield OperatorSpec(
        name="deepinv-nonlinear",
        summary="Any differentiable Physics of deepinv, by name or object",
        factory="scoreplug_deepinv.operators:DeepinvNonlinear",
        references=(_DEEPINV,),
        example={"physics": "Denoising", "image_shape": (1, 4, 4)},
    )
    yield ModelSpec(
        name="deepinv-denoiser",
        summary="A denoiser of deepinv, denoiser(x, sigma), as a prior by Tweedie's formula",
        factory="scoreplug_deepinv.denoiser:DeepinvDenoiser",
        references=(_DEEPINV, "arXiv:2008.13751"),
        example={
            "denoiser": "DRUNet",
            "params": {"in_channels": 1, "out_channels": 1, "nc": (4, 4, 4, 4), "nb": 1},
            "image_shape": (1, 8, 8),
            "sigma_max": 5.0,
        },
    )
