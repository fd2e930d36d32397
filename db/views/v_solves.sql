-- One row a solve: a forward solve, or the adjoint or tangent solve of its gradient.
CREATE VIEW v_solves AS
SELECT
  s.run_id AS run_id,  -- integer: run that the solve belongs to (v_runs.id)
  r.study AS study,  -- text: study of the run
  r.experiment AS experiment,  -- text: experiment of the run
  r.status AS status,  -- text: status of the run
  r.seed AS seed,  -- integer: seed of the run
  r.trial AS trial,  -- text: trial of the run
  r.model AS model,  -- text: config model.name of the run
  r.solver AS forward_solver,  -- text: config solver.name of the run, also on its adjoint solves
  r.gradient AS gradient,  -- text: config gradient.name of the run
  r.adjoint AS adjoint,  -- text: config gradient.solver.name of the run
  s.id AS solve_id,  -- integer: number of the solve in this store; its trace is Store.trace(solve_id)
  s.ord AS ord,  -- integer: place among the solves of the run, from 0
  s.outer_step AS outer_step,  -- integer: index of the measured point in the run (tolerance, budget or training step), from 0
  s.phase AS phase,  -- text: forward, adjoint or tangent
  s.site AS site,  -- text: name of the layer; empty for the only one
  s.problem AS problem,  -- text: name of the problem
  s.solver AS solver,  -- text: solver of this very solve
  s.options AS options,  -- json: options of that solver
  s.iterations AS iterations,  -- integer [iterations]: steps of the solver
  s.evaluations AS evaluations,  -- integer [evaluations]: calls of f on the batch, first and last included; the largest over the samples for a solver that goes sample by sample
  s.sample_evaluations AS sample_evaluations,  -- integer [evaluations]: evaluations of single samples, summed over the batch
  s.jvps AS jvps,  -- integer [products]: Jacobian-vector products
  s.vjps AS vjps,  -- integer [products]: vector-Jacobian products
  s.syncs AS syncs,  -- integer: reads of the device by the host
  s.history_bytes AS history_bytes,  -- integer [bytes]: state that the solver kept between iterations
  s.retcode AS retcode,  -- text: return code of the worst sample
  s.retcodes AS retcodes,  -- json: return code -> number of samples
  s.converged AS converged,  -- number: share of the samples that converged, 0 to 1
  s.message AS message,  -- text: what the worst return code means and what to try
  s.residual_first AS residual_first,  -- number: norm of the residual at the start, largest over the samples
  s.residual_last AS residual_last,  -- number: norm of the residual at the returned point, largest over the samples
  s.residual_min AS residual_min,  -- number: smallest norm of the residual on the way, largest over the samples
  s.residual_relative AS residual_relative,  -- number: residual at the returned point divided by the scale of the test, worst sample
  s.seconds AS seconds,  -- number [s]: wall time, median of the repeats
  s.seconds_q1 AS seconds_q1,  -- number [s]: wall time, lower quartile
  s.seconds_q3 AS seconds_q3,  -- number [s]: wall time, upper quartile
  s.repeats AS repeats,  -- integer: how often the solve was timed
  s.abstol AS abstol,  -- number: absolute tolerance
  s.reltol AS reltol,  -- number: relative tolerance of this solve
  s.norm AS norm,  -- text: norm of the test: l2, rms or linf
  s.max_evaluations AS max_evaluations,  -- integer [evaluations]: budget of this solve
  s.fixed_budget AS fixed_budget,  -- boolean: whether the whole budget was spent, whatever the residual
  s.dtype AS dtype,  -- text: precision of the state
  s.device AS device,  -- text: device of the state
  s.batch AS batch,  -- integer [samples]: samples in the batch
  s.dim AS dim,  -- integer: numbers in the state of one sample
  s.extra AS extra  -- json: anything else; extra.nonfinite names the numbers that were nan or infinite and are NULL here
FROM solve AS s
JOIN v_runs AS r ON r.id = s.run_id
