"""Foreign solvers, each imported when asked for; every one declares what it requires.

``EXTENSIONS`` is all that the registry knows of them until then: names, and where the class is.
"""

EXTENSIONS: dict[str, str] = {
    name: f"solvers.extensions.{place}"
    for name, place in {
        "scipy_anderson": "scipy_optimize:ScipyAnderson",
        "scipy_broyden1": "scipy_optimize:ScipyBroyden1",
        "scipy_broyden2": "scipy_optimize:ScipyBroyden2",
        "scipy_df_sane": "scipy_optimize:ScipyDFSane",
        "scipy_diag_broyden": "scipy_optimize:ScipyDiagBroyden",
        "scipy_exciting_mixing": "scipy_optimize:ScipyExcitingMixing",
        "scipy_hybr": "scipy_minpack:ScipyHybr",
        "scipy_linear_mixing": "scipy_optimize:ScipyLinearMixing",
        "scipy_lm": "scipy_minpack:ScipyLM",
        "scipy_newton_krylov": "scipy_optimize:ScipyNewtonKrylov",
        "torch_lbfgs": "torch_optim:TorchLBFGS",
        "torchdeq_anderson": "torchdeq_solvers:TorchdeqAnderson",
        "torchdeq_broyden": "torchdeq_solvers:TorchdeqBroyden",
        "torchdeq_picard": "torchdeq_solvers:TorchdeqPicard",
        "xitorch_anderson": "xitorch_optimize:XitorchAnderson",
        "xitorch_broyden1": "xitorch_optimize:XitorchBroyden1",
        "xitorch_broyden2": "xitorch_optimize:XitorchBroyden2",
        "xitorch_linear_mixing": "xitorch_optimize:XitorchLinearMixing",
    }.items()
}
