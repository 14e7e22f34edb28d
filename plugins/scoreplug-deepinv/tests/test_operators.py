from __future__ import annotations

import attrs
import pytest
import torch
from deepinv import physics as P
from scoreplug_deepinv.operators import DeepinvNonlinear, DeepinvOperator, DeepinvSVD, from_physics

from scoreplug import Measurement, registry, simulate, testing
from scoreplug.operator import matrix_of

# deepinv computes in float32: sums of a hundred terms, each rounded to 6e-8
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mri_mask() -> torch.Tensor:
    return (draw(1, 8, 8) > 0).float()


def blur_filter() -> torch.Tensor:
    return P.blur.gaussian_blur(sigma=0.6)


LINEAR = {
    "Inpainting": (lambda: P.Inpainting(img_size=(1, 8, 8), mask=0.5), (1, 8, 8), DeepinvSVD),
    "Denoising": (lambda: P.Denoising(), (1, 8, 8), DeepinvSVD),
    "MRI": (lambda: P.MRI(mask=mri_mask(), img_size=(1, 8, 8)), (2, 8, 8), DeepinvSVD),
    "Decolorize": (lambda: P.Decolorize(), (3, 8, 8), DeepinvSVD),
    "SinglePixelCamera": (lambda: P.SinglePixelCamera(m=20, img_size=(1, 8, 8)), (1, 8, 8), DeepinvSVD),
    "BlurFFT": (lambda: P.BlurFFT(img_size=(1, 8, 8), filter=blur_filter()), (1, 8, 8), DeepinvOperator),
    "Blur": (lambda: P.Blur(filter=blur_filter(), padding="circular"), (1, 16, 16), DeepinvOperator),
    "Downsampling": (lambda: P.Downsampling(img_size=(1, 16, 16), factor=2), (1, 16, 16), DeepinvOperator),
    "CompressedSensing": (lambda: P.CompressedSensing(m=20, img_size=(1, 8, 8)), (1, 8, 8), DeepinvOperator),
    "Tomography": (lambda: P.Tomography(angles=10, img_width=16), (1, 16, 16), DeepinvOperator),
    "MultiCoilMRI": (
        lambda: P.MultiCoilMRI(img_size=(2, 8, 8), coil_maps=torch.complex(draw(3, 8, 8), draw(3, 8, 8, seed=1))),
        (2, 8, 8),
        DeepinvOperator,
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_x_and_its_adjoint_are_deepinvs(name):
    make, shape, cls = LINEAR[name]
    physics = make()
    operator = from_physics(physics, shape)
    assert type(operator) is cls
    x = draw(3, *shape)
    expected = physics.A(x)
    torch.testing.assert_close(operator(x), expected, **CLOSE)
    torch.testing.assert_close(operator.adjoint(expected), physics.A_adjoint(expected), **CLOSE)
    assert operator.output_shape == expected.shape[1:]


@pytest.mark.parametrize("name", LINEAR)
def test_the_adjoint_is_the_transpose_in_float64_too(name):
    make, shape, _ = LINEAR[name]
    operator = from_physics(make(), shape)
    x, y = draw(2, *shape).double(), draw(2, *operator.output_shape, seed=1).double()
    Ax, Aty = operator(x), operator.adjoint(y)
    assert Ax.dtype == Aty.dtype == torch.float64
    # 1e-10 where all is float64, 1e-5 where deepinv knows float32 alone
    tolerance = 1e-5 if operator._single else 1e-10
    assert abs(float((Ax * y).sum() - (x * Aty).sum())) <= tolerance * float(Ax.norm() * y.norm())
    assert operator._single == (name in ("CompressedSensing", "Tomography"))


@pytest.mark.parametrize("name", [name for name, (_, _, cls) in LINEAR.items() if cls is DeepinvSVD])
def test_the_decomposition_is_that_of_the_matrix(name):
    make, shape, _ = LINEAR[name]
    operator = from_physics(make(), shape)
    M = matrix_of(operator)
    s = torch.linalg.svdvals(M)
    ours = operator.svd.singular_values.flatten().sort(descending=True).values
    ours = torch.nn.functional.pad(ours, (0, max(0, len(s) - len(ours))))[: len(s)]
    torch.testing.assert_close(ours, s, rtol=1e-5, atol=1e-6)
    y = draw(2, *operator.output_shape).double()
    expected = (torch.linalg.pinv(M, rtol=1e-5) @ y.flatten(1).T).T.reshape(2, *shape)
    torch.testing.assert_close(operator.pinv(y), expected, rtol=1e-4, atol=1e-4)


def test_pinv_is_deepinvs_where_both_are_exact():
    physics = LINEAR["MRI"][0]()
    y = draw(2, 2, 8, 8)
    torch.testing.assert_close(from_physics(physics, (2, 8, 8)).pinv(y), physics.A_dagger(y), **CLOSE)


def test_a_negative_mask_gives_its_sign_to_u():
    mask = torch.tensor([[[[-2.0, 0.0, 3.0, 1.0]]]])
    operator = DeepinvSVD(physics=P.DecomposablePhysics(mask=mask), image_shape=(1, 1, 4))
    assert operator.svd.singular_values.flatten().tolist() == [2, 0, 3, 1]
    c = torch.ones(1, 1, 1, 4, dtype=torch.float64)
    assert operator.svd.U(c).flatten().tolist() == [-1, 0, 1, 1]
    assert operator.pinv(c).flatten().tolist() == [-0.5, 0, pytest.approx(1 / 3), 1]


def test_what_is_no_decomposition_is_refused():
    with pytest.raises(ValueError, match=r"BlurFFT has no singular value decomposition, as V\^T V is not the identity"):
        DeepinvSVD(physics=LINEAR["BlurFFT"][0](), image_shape=(1, 8, 8))
    with pytest.raises(ValueError, match="Blur has no decomposition: use the operator 'deepinv'"):
        DeepinvSVD(physics=LINEAR["Blur"][0](), image_shape=(1, 16, 16))
    skewed = P.DecomposablePhysics(U=lambda x: x, U_adjoint=lambda y: 2 * y, V=lambda c: c, V_adjoint=lambda x: x)
    with pytest.raises(ValueError, match="A_adjoint of DecomposablePhysics is not the transpose"):
        DeepinvSVD(physics=skewed, image_shape=(1, 4, 4))


def test_an_adjoint_that_is_not_the_transpose_is_refused_and_autograds_is_exact():
    wrong = P.LinearPhysics(A=lambda x: 3 * x, A_adjoint=lambda y: y)
    with pytest.raises(ValueError, match=r"not the transpose of A.*adjoint_by='autograd'"):
        DeepinvOperator(physics=wrong, image_shape=(1, 4, 4))
    operator = DeepinvOperator(physics=wrong, image_shape=(1, 4, 4), adjoint_by="autograd")
    y = draw(2, 1, 4, 4)
    torch.testing.assert_close(operator.adjoint(y), 3 * y)


def test_what_is_not_linear_is_refused_as_linear():
    with pytest.raises(ValueError, match=r"says that it is linear, but A\(2 x - 3 x'\)"):
        DeepinvOperator(physics=P.LinearPhysics(A=lambda x: x**2, A_adjoint=lambda y: y), image_shape=(1, 4, 4))
    with pytest.raises(ValueError, match="Physics is no LinearPhysics: use the operator 'deepinv-nonlinear'"):
        DeepinvOperator(physics=P.Physics(A=lambda x: x**2), image_shape=(1, 4, 4))


def test_a_nonlinear_physics_has_autograds_derivative():
    operator = from_physics(P.Physics(A=lambda x: x**3), (1, 4, 4))
    assert type(operator) is DeepinvNonlinear
    x, v = draw(2, 1, 4, 4), draw(2, 1, 4, 4, seed=1)
    y, vjp = operator.linearize(x)
    torch.testing.assert_close(y, x**3)
    torch.testing.assert_close(vjp(v), 3 * x**2 * v)


def test_a_complex_image_is_its_two_parts():
    physics = P.RandomPhaseRetrieval(m=30, img_size=(1, 4, 4))
    operator = from_physics(physics, (2, 1, 4, 4), image="complex")
    x = draw(2, 2, 1, 4, 4)
    torch.testing.assert_close(operator(x), physics.A(torch.complex(x[:, 0], x[:, 1])), **CLOSE)
    with pytest.raises(ValueError, match=r"a complex image is \(2, ...\)"):
        from_physics(physics, (1, 4, 4), image="complex")


@pytest.mark.parametrize("image", ["real", "complex"])
def test_complex_data_are_their_two_parts_with_the_adjoint_of_real_vectors(image):
    physics = P.LinearPhysics(
        A=lambda x: torch.fft.fft2(x, norm="ortho") * 1j, A_adjoint=lambda y: torch.fft.ifft2(y * -1j, norm="ortho")
    )
    shape = (1, 4, 4) if image == "real" else (2, 1, 4, 4)
    operator = DeepinvOperator(physics=physics, image_shape=shape, image=image)
    assert operator.output_shape == (2, 1, 4, 4)
    x = draw(2, *shape)
    y = torch.fft.fft2(x if image == "real" else torch.complex(x[:, 0], x[:, 1]), norm="ortho") * 1j
    torch.testing.assert_close(operator(x), torch.stack([y.real, y.imag], dim=1), **CLOSE)
    torch.testing.assert_close(operator.adjoint(operator(x)), x, **CLOSE)


def test_noise_and_sensor_are_not_applied():
    physics = P.Denoising(P.GaussianNoise(sigma=10.0), sensor_model=torch.sign)
    x = draw(1, 1, 4, 4)
    assert torch.equal(from_physics(physics, (1, 4, 4))(x), x)


def test_the_physics_is_left_as_it_was():
    physics = LINEAR["MRI"][0]()
    before = {name: value.clone() for name, value in physics.state_dict().items()}
    operator = from_physics(physics, (2, 8, 8))
    operator.pinv(draw(1, 2, 8, 8).double())
    for name, value in physics.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_a_physics_by_name_is_the_same_for_a_seed_and_moves_no_generator():
    before = torch.get_rng_state()
    params = {"physics": "Inpainting", "params": {"img_size": [1, 8, 8], "mask": 0.5}, "image_shape": (1, 8, 8)}
    one, again, other = (registry.get_operator("deepinv-svd", seed=seed, **params) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.physics.mask, again.physics.mask)
    assert not torch.equal(one.physics.mask, other.physics.mask)


def test_anybodys_class_is_found_by_its_module():
    operator = registry.get_operator(
        "deepinv", physics="deepinv.physics.inpainting:Demosaicing", params={"img_size": [4, 4]}, image_shape=(3, 4, 4)
    )
    assert operator.output_shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"physics": "Inpaintng"}, "deepinv.physics has no 'Inpaintng'; did you mean 'Inpainting'"),
        ({"physics": "no.such:Thing"}, "'no.such:Thing' cannot be imported"),
        ({"physics": "Denoising", "params": {"strength": 1}}, "Denoising cannot be built with params strength"),
        ({"physics": "Inpainting", "params": {"mask": 0.5}}, "missing 1 required positional argument: 'img_size'"),
        ({"physics": "GaussianNoise"}, "physics must be a deepinv Physics or its name"),
        ({"physics": 3}, "physics must be a deepinv Physics or its name"),
        ({"physics": P.Denoising(), "params": {"a": 1}}, "params are for a physics that is built by name"),
        (
            {"physics": P.Decolorize(), "image_shape": (1, 4, 4)},
            r"Decolorize does not take images of shape \(1, 4, 4\)",
        ),
        ({"physics": P.Denoising().stack(P.Denoising())}, "stacked physics are several operators"),
    ],
)
def test_what_cannot_be_wrapped_is_refused_with_the_reason(params, match):
    with pytest.raises(ValueError, match=match):
        registry.get_operator("deepinv-nonlinear", **{"image_shape": (1, 4, 4), **params})


def test_dps_with_their_physics_is_dps_with_our_operator():
    mask = (draw(1, 8, 8) > 0).float()
    theirs = from_physics(P.Inpainting(img_size=(1, 8, 8), mask=mask), (1, 8, 8))
    ours = registry.get_operator("inpainting", image_shape=(1, 8, 8), mask=mask)
    noisy = (0.7 + 0.05 * draw(1, 1, 8, 8, seed=1)).double()
    prior = registry.get_model("gaussian", image_shape=(1, 8, 8), mean=0.5, covariance=0.1, precision="float64")
    samples = []
    for operator in (theirs, ours):
        measurement = Measurement(operator, operator(noisy)[0], 0.05)
        posterior = registry.get_conditioner("dps").condition(prior, measurement)
        samples.append(registry.get_sampler("ancestral", steps=20).sample(posterior, 2))
    torch.testing.assert_close(*samples, rtol=1e-9, atol=1e-9)


def test_ddrm_runs_on_their_decomposition():
    operator = from_physics(LINEAR["MRI"][0](), (2, 8, 8))
    prior = registry.get_model("gaussian", image_shape=(2, 8, 8), mean=0.5, covariance=0.1)
    measurement = simulate(operator, torch.full((2, 8, 8), 0.7), 0.01)
    posterior = registry.get_conditioner("ddrm").condition(prior, measurement)
    x = registry.get_sampler("ancestral", steps=20).sample(posterior, 2)
    # DDRM draws measured coordinates within the noise: the residual is of its size, not of the prior's 0.3
    measured = operator.svd.Ut(measurement.residual(x))
    assert float(measured.square().mean().sqrt()) < 0.05


@pytest.mark.parametrize("name", ["deepinv", "deepinv-svd", "deepinv-nonlinear"])
def test_the_conformance_kit_passes(name):
    report = testing.run_checks(name, "operator")
    assert report.ok, [attrs.asdict(result) for result in report.failures]
