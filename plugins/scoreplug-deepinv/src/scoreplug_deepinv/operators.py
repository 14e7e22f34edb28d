r"""deepinv's `Physics` as operators.

A physics is y = N(A(x)). Here A alone is used: its noise model N and sensor are not applied, as scoreplug's measurement
has its own noise, y = A x + noise_std n. What a physics claims is checked when it is wrapped, on random vectors:

* `DeepinvOperator`: A(2 x - 3 x') = 2 A x - 3 A x', and <A x, y> = <x, A^T y> with `A_adjoint`, or autograd's.
* `DeepinvSVD`: A = U diag(mask) V^T with V^T V = I. A negative mask gives its sign to U. (`BlurFFT` keeps half of a
  real image's spectrum, so that its V is not orthonormal: it is refused here, and works as a `DeepinvOperator`.)
* `DeepinvNonlinear`: nothing; derivatives are autograd's.

Complex values are real and imaginary part, (2, ...), in y always, and in x with image="complex". Physics that keep the
two as channels (`MRI`) need neither.

References:
    Tachella et al.: DeepInverse: A Python package for solving imaging inverse problems with deep learning. 2025,
    arXiv:2505.20160.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
import torch
from deepinv.physics import DecomposablePhysics, LinearPhysics, Physics  # type: ignore[import-untyped]
from torch import Tensor

from scoreplug import SVD, BaseLinearOperator, BaseOperator, Noise, SpectralOperator, param
from scoreplug.param import ParameterError
from scoreplug_deepinv.named import build

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


@attrs.frozen(kw_only=True, eq=False)
class DeepinvNonlinear(BaseOperator):
    """Any physics, through autograd.

    Raises:
        ParameterError: if the physics cannot be built, does not take such images, or gives no tensor.
    """

    physics: Any = param(doc="a Physics, or its name: one of deepinv.physics, or 'package.module:Class'")
    params: Mapping[str, Any] = param(attrs.Factory(dict), doc="arguments that it is built with, if it is a name")
    image_shape: tuple[int, ...] = param(doc="shape of one image, (channels, height, width)", ge=1, unit="pixel")
    image: Literal["real", "complex"] = param("real", doc="complex: x is (2, ...), and A is given x[0] + i x[1]")
    seed: int = param(0, ge=0, doc="of whatever the physics draws when it is built by name, such as a mask")

    def __attrs_post_init__(self) -> None:
        if isinstance(self.physics, str):
            object.__setattr__(
                self, "physics", build(self._name, self.physics, "deepinv.physics", self.params, self.seed)
            )
        elif self.params:
            raise self._error("params are for a physics that is built by name, and an object was given")
        if not isinstance(self.physics, Physics):
            raise self._error(f"physics must be a deepinv Physics or its name (got {type(self.physics).__name__})")
        if self.image == "complex" and self.image_shape[0] != 2:
            raise self._error(f"a complex image is (2, ...), real and imaginary part (got {self.image_shape!r})")
        _ = self.output_shape  # what does not fit is found now
        self._check()

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _error(self, problem: str) -> ParameterError:
        return ParameterError(self._name, [problem])

    def _check(self) -> None:
        """Refuse a physics that is not what it claims."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.image_shape

    @functools.cached_property
    def output_shape(self) -> tuple[int, ...]:
        x = self._draw("x", self.image_shape, 1)
        try:
            y = self.forward(x)
        except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
            raise self._error(
                f"{type(self.physics).__name__} does not take images of shape {self.image_shape}: {error}"
            ) from error
        return tuple(y.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        x_ = x.to(self._type(x))
        return self._to_real(self._at(x_).A(self._to_image(x_)), x)

    # Types: a physics has buffers of one type, and x may have another

    def _type(self, like: Tensor) -> torch.dtype:
        """The type that is computed in."""
        return torch.float32 if self._single else like.dtype

    @functools.cached_property
    def _single(self) -> bool:
        """Some physics make float32 tensors of their own on the way, and take no others."""
        try:
            self._try(self._draw("x", self.image_shape, 1))
        except RuntimeError as error:
            return "dtype" in str(error) or "scalar type" in str(error)
        return False

    def _try(self, x: Tensor) -> None:
        """What a physics has to do in x's type."""
        self._at(x).A(self._to_image(x))

    def _at(self, like: Tensor) -> Any:
        """The physics with buffers of the type and on the device of `like`; the one that was given is left alone."""
        key = like.dtype, like.device
        if key not in self._copies:
            self._copies[key] = _converted(_copied(self.physics), *key)
        return self._copies[key]

    @functools.cached_property
    def _copies(self) -> dict[Any, Any]:
        return {}

    def _to_image(self, x: Tensor) -> Tensor:
        return torch.complex(x[:, 0], x[:, 1]) if self.image == "complex" else x

    def _from_image(self, x: Tensor) -> Tensor:
        """The gradient in x: for a real image that of the real part."""
        if self.image == "complex":
            return torch.stack([x.real, x.imag], dim=1) if x.is_complex() else torch.stack([x, 0 * x], dim=1)
        return x.real if x.is_complex() else x

    def _to_real(self, y: Any, x: Tensor) -> Tensor:
        if not isinstance(y, Tensor):
            raise TypeError(f"it gives a {type(y).__name__}: stacked physics are several operators, wrap each alone")
        y = torch.stack([y.real, y.imag], dim=1) if y.is_complex() else y
        return y.to(x.dtype)

    def _draw(self, label: str, shape: tuple[int, ...], n: int = 2) -> Tensor:
        """Fixed random vectors, (n, *shape), float64, on the device of the physics."""
        device = next((b.device for b in self.physics.buffers()), torch.device("cpu"))
        return Noise(0, range(n), dtype=torch.float64, device=device).at("deepinv", label).normal(shape)


@attrs.frozen(kw_only=True, eq=False)
class DeepinvOperator(DeepinvNonlinear, BaseLinearOperator):
    """A linear physics, with its own adjoint or autograd's.

    Raises:
        ParameterError: if the physics is not linear, or its adjoint is not the transpose.
    """

    adjoint_by: Literal["physics", "autograd"] = param(
        "physics", doc="A^T: the physics' A_adjoint, or autograd's, which is always exact"
    )

    def transpose(self, y: Tensor) -> Tensor:
        if self.adjoint_by == "autograd":
            return BaseLinearOperator.transpose(self, y)
        y_ = y.to(self._type(y))
        return self._from_image(self._at(y_).A_adjoint(self._to_data(y_))).to(y.dtype)

    def _try(self, x: Tensor) -> None:
        physics = self._at(x)
        y = physics.A(self._to_image(x))
        if self.adjoint_by == "physics" and hasattr(physics, "A_adjoint"):
            physics.A_adjoint(y)

    def linearize(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return BaseLinearOperator.linearize(self, x)

    @functools.cached_property
    def _complex_data(self) -> bool:
        x = self._draw("x", self.image_shape, 1)
        x = x.to(self._type(x))
        return bool(self._at(x).A(self._to_image(x)).is_complex())

    def _to_data(self, y: Tensor) -> Tensor:
        return torch.complex(y[:, 0].contiguous(), y[:, 1].contiguous()) if self._complex_data else y

    def _check(self) -> None:
        if not isinstance(self.physics, LinearPhysics):
            raise self._error(
                f"{type(self.physics).__name__} is no LinearPhysics: use the operator 'deepinv-nonlinear'"
            )
        x, y = self._draw("x", self.input_shape), self._draw("y", self.output_shape)
        Ax = self(x)
        # physics compute in part in float32, and sums of n terms agree to a few of its roundings of their size
        size, tolerance = float(Ax.norm()), 1e-5
        if not float((self(2 * x[:1] - 3 * x[1:]) - 2 * Ax[:1] + 3 * Ax[1:]).norm()) <= 10 * tolerance * size:
            raise self._error(
                f"{type(self.physics).__name__} says that it is linear, but A(2 x - 3 x') != 2 A x - 3 A x'"
            )
        forward, backward = float((Ax * y).sum()), float((x * self.adjoint(y)).sum())
        if not abs(forward - backward) <= tolerance * size * float(y.norm()):
            raise self._error(
                f"A_adjoint of {type(self.physics).__name__} is not the transpose of A: <A x, y> = {forward:.6g}, "
                f"<x, A^T y> = {backward:.6g}; adjoint_by='autograd' gives the exact one"
            )


@attrs.frozen(kw_only=True, eq=False)
class DeepinvSVD(DeepinvOperator, SpectralOperator):
    """A decomposable physics, with everything that follows from its decomposition.

    Raises:
        ParameterError: if the physics has no decomposition, or what it has is none.
    """

    @functools.cached_property
    def svd(self) -> SVD:
        x = self._draw("x", self.image_shape, 1)
        mask = self._at(x).mask
        signed = (mask.double() * torch.ones_like(self._coordinates(x)[:1]))[0]
        sign = signed.sign()  # 0 where nothing is measured: U ignores those coordinates, and U^T y is 0 there

        def U(c: Tensor) -> Tensor:
            c_ = c.to(self._type(c))
            return self._to_real(self._at(c_).U(sign.to(c_) * c_), c)

        def Ut(y: Tensor) -> Tensor:
            y_ = y.to(self._type(y))
            return (sign.to(y_) * self._at(y_).U_adjoint(self._to_data(y_))).to(y.dtype)

        def V(c: Tensor) -> Tensor:
            c_ = c.to(self._type(c))
            return self._from_image(self._at(c_).V(c_)).to(c.dtype)

        return SVD(
            singular_values=signed.abs().cpu(),
            V=V,
            Vt=self._coordinates,
            U=U,
            Ut=Ut,
        )

    def _coordinates(self, x: Tensor) -> Tensor:
        x_ = x.to(self._type(x))
        coordinates: Tensor = self._at(x_).V_adjoint(self._to_image(x_))
        return coordinates if coordinates.is_complex() else coordinates.to(x.dtype)

    def _check(self) -> None:
        if not isinstance(self.physics, DecomposablePhysics):
            raise self._error(f"{type(self.physics).__name__} has no decomposition: use the operator 'deepinv'")
        super()._check()
        x = self._draw("x", self.image_shape)
        if self._coordinates(x).is_complex() or self._at(x).mask.is_complex():
            raise self._error(
                f"{type(self.physics).__name__} has complex spectral coordinates, and these are real: use 'deepinv'"
            )
        svd = self.svd
        c = self._draw("c", tuple(svd.singular_values.shape))
        s = svd.singular_values.to(c)
        for what, found, expected in (
            ("V^T V is not the identity", svd.Vt(svd.V(c)), c),
            ("V_adjoint is not the transpose of V", (svd.Vt(x) * c).sum(), (x * svd.V(c)).sum()),
            ("U diag(mask) V^T is not A", svd.U(s * svd.Vt(x)), self(x)),
            ("U^T A is not diag(mask) V^T", svd.Ut(self(x)), s * svd.Vt(x)),
        ):
            size = float(c.norm() * x.norm()) if found.ndim == 0 else float(expected.norm())
            if not float((found - expected).norm()) <= 1e-5 * size:
                raise self._error(
                    f"{type(self.physics).__name__} has no singular value decomposition, as {what}: "
                    "use the operator 'deepinv'"
                )


def from_physics(physics: Physics, image_shape: tuple[int, ...], **params: Any) -> BaseOperator:
    """The operator of a physics that can do most.

    Args:
        physics: any of deepinv's, or an own one.
        image_shape: shape of one image, without batch dimension.
        params: further parameters of the operator.

    Raises:
        ParameterError: if not even its forward map fits.
    """
    for cls, base in ((DeepinvSVD, DecomposablePhysics), (DeepinvOperator, LinearPhysics)):
        if isinstance(physics, base):
            try:
                made: BaseOperator = cls(physics=physics, image_shape=image_shape, **params)
            except ParameterError:
                if cls is DeepinvOperator:
                    raise
            else:
                return made
    return DeepinvNonlinear(physics=physics, image_shape=image_shape, **params)


def _copied(physics: Any) -> Any:
    """A copy that shares the generators, which cannot be copied, and which A does not draw from."""
    held = [value for module in physics.modules() for value in vars(module).values()]
    return copy.deepcopy(physics, {id(value): value for value in held if isinstance(value, torch.Generator)})


def _converted(physics: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """Floating-point and complex buffers in this type; integers and flags as they are."""

    def convert(t: Tensor) -> Tensor:
        if t.is_complex():
            return t.to(device, _COMPLEX.get(dtype, torch.complex64))
        return t.to(device, dtype) if t.is_floating_point() else t.to(device)

    return physics._apply(convert).requires_grad_(requires_grad=False)
