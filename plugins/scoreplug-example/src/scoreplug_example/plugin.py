"""What this package adds to scoreplug. The method's own module, and torch, are imported when it is built."""

from collections.abc import Iterable

from scoreplug import ComponentSpec, ConditionerSpec, hookimpl


@hookimpl
def scoreplug_components() -> Iterable[ComponentSpec]:
    """Name the components of this package; a second method is a second `yield`."""
    yield ConditionerSpec(
        name="example",
        summary="A Gaussian likelihood of one variance around the denoised estimate",
        factory="scoreplug_example.example:Example",
        references=(),  # your paper here: "arXiv:2209.14687" or "doi:10...."
        vjp=True,  # it differentiates through the network
    )
