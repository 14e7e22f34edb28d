"""The components that ship with scoreplug: one line of a table each. Nothing is imported until it is built."""

from __future__ import annotations

from collections.abc import Iterable

from scoreplug import ComponentSpec, ConditionerSpec, ModelSpec, OperatorSpec, SamplerSpec, SDESpec, hookimpl

_SCORE_SDE = "arXiv:2011.13456"  # Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole (2021)
_DPS = "arXiv:2209.14687"  # Chung, Kim, Mccann, Klasky, Ye (2023)

COMPONENTS: tuple[ComponentSpec, ...] = (
    SDESpec(
        name="vp",
        summary="Variance preserving: dx = -beta/2 x dt + sqrt(beta) dw, beta linear in t",
        factory="scoreplug_builtin.sdes.vp:VP",
        references=(_SCORE_SDE, "arXiv:2006.11239"),
    ),
    SDESpec(
        name="ve",
        summary="Variance exploding: sigma geometric in t, the signal is not scaled",
        factory="scoreplug_builtin.sdes.ve:VE",
        references=(_SCORE_SDE, "arXiv:1907.05600"),
    ),
    SDESpec(
        name="subvp",
        summary="Sub-variance preserving: the drift of vp, with smaller variance at every t",
        factory="scoreplug_builtin.sdes.subvp:SubVP",
        references=(_SCORE_SDE,),
    ),
    ModelSpec(
        name="gaussian",
        summary="Gaussian prior N(mean, covariance): the exact score",
        factory="scoreplug_builtin.models.gaussian:Gaussian",
        provides=("log-density",),
    ),
    ModelSpec(
        name="gaussian-mixture",
        summary="Mixture of Gaussians: the exact score",
        factory="scoreplug_builtin.models.gaussian_mixture:GaussianMixture",
        provides=("log-density",),
    ),
    ModelSpec(
        name="openai-unet",
        summary="UNet of guided diffusion: the published checkpoints, or one trained with `scoreplug train`",
        factory="scoreplug_builtin.models.openai_unet:OpenAIUNet",
        references=("arXiv:2105.05233", "arXiv:2206.00364"),
        trainable=True,
    ),
    ModelSpec(
        name="ellipses-64",
        summary="Small prior on 64 x 64 phantoms of random ellipses; the weights ship with the package",
        factory="scoreplug_builtin.models.ellipses_64:Ellipses64",
        shape=(1, 64, 64),
    ),
    ModelSpec(
        name="digits-32",
        summary="Small prior on 32 x 32 handwritten digits; the weights ship with the package",
        factory="scoreplug_builtin.models.digits_32:Digits32",
        shape=(1, 32, 32),
    ),
    OperatorSpec(
        name="identity",
        summary="A x = x: denoising",
        factory="scoreplug_builtin.operators.identity:Identity",
        provides=("linear", "pinv", "svd"),
    ),
    OperatorSpec(
        name="matrix",
        summary="A given as a dense matrix on the flattened image",
        factory="scoreplug_builtin.operators.matrix:Matrix",
        provides=("linear", "pinv", "svd"),
    ),
    OperatorSpec(
        name="inpainting",
        summary="Keeps the pixels of a mask",
        factory="scoreplug_builtin.operators.inpainting:Inpainting",
        provides=("linear", "pinv", "svd"),
    ),
    OperatorSpec(
        name="downsampling",
        summary="Mean over blocks of pixels: super-resolution",
        factory="scoreplug_builtin.operators.downsampling:Downsampling",
        provides=("linear", "pinv", "svd"),
    ),
    OperatorSpec(
        name="blur",
        summary="Circular convolution with a kernel: deblurring",
        factory="scoreplug_builtin.operators.blur:Blur",
        provides=("linear", "pinv", "svd"),
    ),
    OperatorSpec(
        name="radon",
        summary="Parallel-beam line integrals: sparse-view and limited-angle tomography",
        factory="scoreplug_builtin.operators.radon:Radon",
        provides=("linear",),
    ),
    OperatorSpec(
        name="fourier",
        summary="Undersampled orthonormal Fourier transform: single-coil MRI",
        factory="scoreplug_builtin.operators.fourier:Fourier",
        provides=("linear", "pinv", "svd"),
    ),
    ConditionerSpec(
        name="none",
        summary="Ignores the measurement: samples of the prior",
        factory="scoreplug_builtin.conditioners.none:NoMeasurement",
    ),
    ConditionerSpec(
        name="jalal",
        summary="Annealed likelihood at x_t itself, for Langevin dynamics (CSGM-MRI)",
        factory="scoreplug_builtin.conditioners.jalal:Jalal",
        references=("arXiv:2108.01368", "arXiv:2111.08005"),
        needs=("linear",),
    ),
    ConditionerSpec(
        name="dps",
        summary="Diffusion posterior sampling: gradient of |y - A x0| through the network, x0 = E[x_0 | x_t]",
        factory="scoreplug_builtin.conditioners.dps:DPS",
        references=(_DPS,),
        vjp=True,
    ),
    SamplerSpec(
        name="em",
        summary="Euler-Maruyama on the reverse SDE",
        factory="scoreplug_builtin.samplers.em:EulerMaruyama",
        aliases=("euler-maruyama",),
        references=(_SCORE_SDE,),
    ),
    SamplerSpec(
        name="ancestral",
        summary="Ancestral sampling: the transitions of DDPM and DDIM",
        factory="scoreplug_builtin.samplers.ancestral:Ancestral",
        aliases=("ddpm",),
        references=("arXiv:2006.11239", "arXiv:2010.02502"),
    ),
    SamplerSpec(
        name="pc",
        summary="Predictor-corrector: Langevin moves at each level, then a step of the reverse SDE",
        factory="scoreplug_builtin.samplers.pc:PredictorCorrector",
        aliases=("predictor-corrector",),
        references=(_SCORE_SDE,),
    ),
    SamplerSpec(
        name="langevin",
        summary="Annealed Langevin dynamics: Langevin moves at each level, no predictor",
        factory="scoreplug_builtin.samplers.langevin:Langevin",
        aliases=("annealed-langevin",),
        references=("arXiv:1907.05600", _SCORE_SDE),
    ),
)


@hookimpl
def scoreplug_components() -> Iterable[ComponentSpec]:
    return COMPONENTS
