"""A plugin for the tests of the benchmark: problems that take milliseconds, and parts that do not fit."""

from scoreplug import ConditionerSpec, ProblemSpec, SamplerSpec, hookimpl

PROBLEMS = "scoreplug_builtin.problems"
KNOWN = ("samples", "evidence", "oracle", "moments", "log-posterior")


@hookimpl
def scoreplug_components():
    yield ProblemSpec(name="tiny", summary="A line", factory=f"{PROBLEMS}.gaussian:GaussianProblem", provides=KNOWN)
    yield ProblemSpec(name="bare", summary="Nothing is known", factory=f"{PROBLEMS}.gaussian:GaussianProblem")
    yield ProblemSpec(
        name="bent",
        summary="Not linear",
        factory=f"{PROBLEMS}.nonlinear:NonlinearProblem",
        provides=("samples", "oracle"),
    )
    yield SamplerSpec(
        name="needy", summary="Needs a twist", factory="scoreplug_builtin.samplers.em:EulerMaruyama", needs=("twist",)
    )
    yield ConditionerSpec(name="gone", summary="Cannot be imported", factory="scoreplug_builtin.conditioners.gone:Gone")
