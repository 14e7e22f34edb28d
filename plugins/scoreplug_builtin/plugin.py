"""The components that ship with scoreplug: one line of a table each. Nothing is imported until it is built."""

from __future__ import annotations

from collections.abc import Iterable

from scoreplug import ComponentSpec, ConditionerSpec, ModelSpec, OperatorSpec, SamplerSpec, SDESpec, hookimpl

_SCORE_SDE = "arXiv:2011.13456"  # Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole (2021)
_DPS = "arXiv:2209.14687"  # Chung, Kim, Mccann, Klasky, Ye (2023)
_EDM = "arXiv:2206.00364"  # Karras, Aittala, Aila, Laine (2022)
_REUSE = (
    "arXiv:2302.11552"  # Du, Durkan, Strudel, Tenenbaum, Dieleman, Fergus, Sohl-Dickstein, Doucet, Grathwohl (2023)
)

_TINY_UNET = {
    "image_shape": (1, 8, 8),
    "model_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": (1, 2),
    "attention_resolutions": (),
}

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
    SDESpec(
        name="cosine",
        summary="Variance preserving with alpha = cos(pi t / 2): the cosine schedule",
        factory="scoreplug_builtin.sdes.cosine:Cosine",
        references=("arXiv:2102.09672",),
    ),
    SDESpec(
        name="edm",
        summary="Variance exploding with sigma^(1/rho) linear in t: uniform steps are Karras' grid",
        factory="scoreplug_builtin.sdes.edm:EDM",
        references=(_EDM,),
    ),
    SDESpec(
        name="flow",
        summary="Rectified flow: alpha = 1 - t, sigma = t",
        factory="scoreplug_builtin.sdes.flow:Flow",
        references=("arXiv:2209.03003", "arXiv:2210.02747"),
    ),
    SDESpec(
        name="ddpm",
        summary="The discrete chains of DDPM, linear or cosine betas, made continuous between their steps",
        factory="scoreplug_builtin.sdes.ddpm:DDPM",
        references=("arXiv:2006.11239", "arXiv:2102.09672"),
    ),
    ModelSpec(
        name="gaussian",
        summary="Gaussian prior N(mean, covariance): the exact score",
        factory="scoreplug_builtin.models.gaussian:Gaussian",
        example={"image_shape": (1, 2, 2), "mean": 0.3, "covariance": 0.5},
        provides=("log-density",),
    ),
    ModelSpec(
        name="gaussian-mixture",
        summary="Mixture of Gaussians: the exact score",
        factory="scoreplug_builtin.models.gaussian_mixture:GaussianMixture",
        example={"image_shape": (1, 2, 2), "means": ((0.0, 0.5, 0.2, 0.1), (1.0, -0.5, 0.3, 0.0)), "covariances": 0.3},
        provides=("log-density",),
    ),
    ModelSpec(
        name="openai-unet",
        summary="UNet of guided diffusion: the published checkpoints, or one trained with `scoreplug train`",
        factory="scoreplug_builtin.models.openai_unet:OpenAIUNet",
        example=_TINY_UNET,
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
    ModelSpec(
        name="energy",
        summary="A network read as an energy, whose gradient is the score: Metropolis acceptance becomes exact",
        factory="scoreplug_builtin.models.energy:Energy",
        example={"base": {"name": "gaussian", "image_shape": (1, 2, 2)}},
        references=(_REUSE, "arXiv:2101.03288"),
        provides=("log-density",),
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
        example={
            "image_shape": (1, 2, 2),
            "matrix": ((1.0, 0.5, 0.0, 0.2), (0.0, 1.0, -0.3, 0.0), (2.0, 0.0, 1.0, 1.0)),
        },
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
        example={"factor": 2},
        provides=("linear", "pinv", "svd"),
    ),
    OperatorSpec(
        name="blur",
        summary="Circular convolution with a kernel: deblurring",
        factory="scoreplug_builtin.operators.blur:Blur",
        example={"std": 0.6},
        provides=("linear", "pinv", "svd"),
    ),
    OperatorSpec(
        name="radon",
        summary="Parallel-beam line integrals: sparse-view and limited-angle tomography",
        factory="scoreplug_builtin.operators.radon:Radon",
        example={"image_shape": (1, 6, 6), "angles": 4, "pinv_tolerance": 1e-13, "svd_tolerance": 0.0},
        provides=("linear", "pinv", "svd"),
    ),
    OperatorSpec(
        name="colorization",
        summary="Mean over the channels: a grey image of a colour image",
        factory="scoreplug_builtin.operators.colorization:Colorization",
        provides=("linear", "pinv", "svd"),
    ),
    OperatorSpec(
        name="walsh-hadamard",
        summary="Random rows of the Walsh-Hadamard transform: compressed sensing, the single-pixel camera",
        factory="scoreplug_builtin.operators.walsh_hadamard:WalshHadamard",
        provides=("linear", "pinv", "svd"),
    ),
    OperatorSpec(
        name="fourier",
        summary="Undersampled orthonormal Fourier transform: single-coil MRI",
        factory="scoreplug_builtin.operators.fourier:Fourier",
        example={"acceleration": 2.0},
        provides=("linear", "pinv", "svd"),
    ),
    OperatorSpec(
        name="multi-coil-fourier",
        summary="Undersampled Fourier transforms of the image seen by several receiver coils: parallel MRI",
        factory="scoreplug_builtin.operators.multi_coil_fourier:MultiCoilFourier",
        example={"image": "complex", "coils": 3, "acceleration": 1.0, "center_fraction": 0.0},
        references=("doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S",),
        provides=("linear", "pinv"),
    ),
    OperatorSpec(
        name="phase-retrieval",
        summary="Magnitude of the oversampled Fourier transform; nonlinear",
        factory="scoreplug_builtin.operators.phase_retrieval:PhaseRetrieval",
        references=(_DPS,),
    ),
    OperatorSpec(
        name="hdr",
        summary="Overexposure: values are multiplied and clipped; nonlinear",
        factory="scoreplug_builtin.operators.hdr:HDR",
        references=("arXiv:2407.01521",),
    ),
    ConditionerSpec(
        name="none",
        summary="Ignores the measurement: samples of the prior",
        factory="scoreplug_builtin.conditioners.none:NoMeasurement",
        keeps=("log-density",),
    ),
    ConditionerSpec(
        name="jalal",
        summary="Annealed likelihood at x_t itself, for Langevin dynamics (CSGM-MRI)",
        factory="scoreplug_builtin.conditioners.jalal:Jalal",
        references=("arXiv:2108.01368", "arXiv:2111.08005"),
        keeps=("log-density",),
        canonical=("langevin",),
    ),
    ConditionerSpec(
        name="dps",
        summary="Diffusion posterior sampling: gradient of |y - A x0| through the network, x0 = E[x_0 | x_t]",
        factory="scoreplug_builtin.conditioners.dps:DPS",
        example={"scale": 0.02},
        references=(_DPS,),
        vjp=True,
        keeps=("log-density",),
        canonical=("ancestral",),
    ),
    ConditionerSpec(
        name="song",
        summary="Projection: the measured part of x_t is replaced by, or mixed with, the noised measurement",
        factory="scoreplug_builtin.conditioners.song:Song",
        aliases=("projection", "replacement"),
        references=("arXiv:2111.08005", _SCORE_SDE),
        needs=("linear", "pinv"),
        keeps=("log-density",),
        canonical=("pc",),
    ),
    ConditionerSpec(
        name="mcg",
        summary="Manifold-constrained gradient: DPS's gradient on the unmeasured part, projection on the measured one",
        factory="scoreplug_builtin.conditioners.mcg:MCG",
        example={"scale": 0.02},
        aliases=("chung",),
        references=("arXiv:2206.00941",),
        needs=("linear", "pinv"),
        vjp=True,
        canonical=("ancestral", "pc"),
    ),
    ConditionerSpec(
        name="ddrm",
        summary="Denoising diffusion restoration: the measured spectral coordinates are redrawn at every level",
        factory="scoreplug_builtin.conditioners.ddrm:DDRM",
        aliases=("kawar",),
        references=("arXiv:2201.11793",),
        needs=("linear", "svd"),
        keeps=("log-density",),
        canonical=("ancestral",),
    ),
    ConditionerSpec(
        name="snips",
        summary="Langevin dynamics in the basis of the SVD, with noise that is correlated with the measurement's",
        factory="scoreplug_builtin.conditioners.snips:SNIPS",
        aliases=("kawar-2021",),
        references=("arXiv:2105.14951",),
        needs=("linear", "svd"),
        canonical=("langevin",),
    ),
    SamplerSpec(
        name="em",
        summary="Euler-Maruyama on the reverse SDE",
        factory="scoreplug_builtin.samplers.em:EulerMaruyama",
        aliases=("euler-maruyama",),
        references=(_SCORE_SDE,),
    ),
    SamplerSpec(
        name="reverse-diffusion",
        summary="The reverse of the process's discrete chain: score_sde's default predictor",
        factory="scoreplug_builtin.samplers.reverse_diffusion:ReverseDiffusion",
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
        name="ode",
        summary="Probability flow: Euler, Heun, or Runge-Kutta with adaptive steps",
        factory="scoreplug_builtin.samplers.ode:ProbabilityFlow",
        aliases=("probability-flow",),
        references=(_SCORE_SDE, _EDM),
    ),
    SamplerSpec(
        name="dpm-solver",
        summary="Exponential multistep solver of the probability flow or the reverse SDE: DPM-Solver++ 2M and 3M",
        factory="scoreplug_builtin.samplers.dpm_solver:DPMSolver",
        aliases=("dpm",),
        references=("arXiv:2211.01095",),
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
        corrects=True,
    ),
    SamplerSpec(
        name="ula",
        summary="Unadjusted Langevin moves at each level, with the step size as a parameter",
        factory="scoreplug_builtin.samplers.ula:ULA",
        references=(_REUSE,),
        corrects=True,
    ),
    SamplerSpec(
        name="mala",
        summary="Metropolis-adjusted Langevin moves at each level",
        factory="scoreplug_builtin.samplers.mala:MALA",
        references=(_REUSE, "doi:10.2307/3318418"),
        exact_with=("log-density",),
        corrects=True,
    ),
    SamplerSpec(
        name="hmc",
        summary="Hamiltonian Monte Carlo at each level, with partial refreshment of the momentum",
        factory="scoreplug_builtin.samplers.hmc:HMC",
        references=(_REUSE, "doi:10.1016/0370-2693(91)90812-5"),
        exact_with=("log-density",),
        corrects=True,
    ),
)


@hookimpl
def scoreplug_components() -> Iterable[ComponentSpec]:
    return COMPONENTS
