-- One row a gradient check: a gradient of the loss against its reference, what it cost, and the two solves behind it.
CREATE VIEW v_gradients AS
SELECT
  g.run_id AS run_id,  -- integer: run that the check belongs to (v_runs.id)
  r.study AS study,  -- text: study of the run
  r.experiment AS experiment,  -- text: experiment of the run
  r.status AS status,  -- text: status of the run
  r.seed AS seed,  -- integer: seed of the run
  r.trial AS trial,  -- text: trial of the run
  r.model AS model,  -- text: config model.name of the run
  r.solver AS solver,  -- text: config solver.name of the run, the forward solver
  r.adjoint AS adjoint,  -- text: config gradient.solver.name of the run, the solver of the adjoint
  r.train_steps AS train_steps,  -- integer [steps]: training steps before the measurement
  COALESCE(f.max_evaluations, r.max_evaluations) AS max_evaluations,  -- integer [evaluations]: budget of the forward solve
  COALESCE(f.fixed_budget, r.fixed_budget) AS fixed_budget,  -- boolean: whether the forward solve spent its whole budget, whatever the residual
  g.id AS gradient_id,  -- integer: number of the check in this store
  g.ord AS ord,  -- integer: place among the checks of the run, from 0
  g.outer_step AS outer_step,  -- integer: index of the measured point in the run (tolerance, budget or training step), from 0
  g.solve_id AS solve_id,  -- integer: the forward solve (v_solves.solve_id)
  g.adjoint_id AS adjoint_id,  -- integer: the adjoint solve (v_solves.solve_id); NULL when the gradient has none
  g.target AS target,  -- text: parameters for all of them together, or the name of one
  g.method AS gradient,  -- text: how the gradient was obtained, its name in the registry
  g.options AS options,  -- json: options of the gradient
  g.reference AS reference,  -- text: what it is compared with
  g.rel_err AS rel_err,  -- number: norm of the difference to the reference, divided by the norm of the reference
  g.cosine AS cosine,  -- number: cosine of the angle to the reference
  g.norm AS norm,  -- number: norm of the gradient
  g.norm_ref AS norm_ref,  -- number: norm of the reference
  g.norm_ratio AS norm_ratio,  -- number: norm divided by norm_ref
  g.n AS n,  -- integer: numbers in the gradient
  g.fwd_residual AS fwd_residual,  -- number: residual of the forward solve, largest over the samples
  g.bwd_residual AS bwd_residual,  -- number: residual of the adjoint solve, largest over the samples
  g.reltol AS reltol,  -- number: relative tolerance of this point
  g.dtype AS dtype,  -- text: precision of the gradient
  g.kept_bytes AS kept_bytes,  -- integer [bytes]: what autograd keeps between forward and backward, parameters excluded
  g.history_bytes AS history_bytes,  -- integer [bytes]: state of the forward solver
  g.peak_bytes AS peak_bytes,  -- integer [bytes]: peak of the device's memory; NULL where it is not measured
  g.forward_seconds AS forward_seconds,  -- number [s]: forward, median of the repeats
  g.forward_seconds_q1 AS forward_seconds_q1,  -- number [s]: forward, lower quartile
  g.forward_seconds_q3 AS forward_seconds_q3,  -- number [s]: forward, upper quartile
  g.backward_seconds AS backward_seconds,  -- number [s]: backward, median of the repeats
  g.backward_seconds_q1 AS backward_seconds_q1,  -- number [s]: backward, lower quartile
  g.backward_seconds_q3 AS backward_seconds_q3,  -- number [s]: backward, upper quartile
  g.products AS products,  -- integer [products]: vector-Jacobian products of the adjoint; NULL when unrolled
  g.loss AS loss,  -- number: loss at the solution
  g.loss_ref AS loss_ref,  -- number: loss at the reference's solution
  g.state_err AS state_err,  -- number: relative error of the solution against the float64 reference
  g.extra AS extra,  -- json: anything else; extra.nonfinite names the numbers that were nan or infinite and are NULL here
  f.evaluations AS forward_evaluations,  -- integer [evaluations]: evaluations of the forward solve
  f.iterations AS forward_iterations,  -- integer [iterations]: iterations of the forward solve
  f.retcode AS forward_retcode,  -- text: return code of the forward solve, worst sample
  f.converged AS forward_converged,  -- number: share of the samples that converged forward, 0 to 1
  f.message AS forward_message,  -- text: what that return code means and what to try
  a.retcode AS adjoint_retcode,  -- text: return code of the adjoint solve, worst sample
  a.converged AS adjoint_converged,  -- number: share of the samples whose adjoint converged, 0 to 1
  a.message AS adjoint_message,  -- text: what that return code means and what to try
  f.batch AS batch,  -- integer [samples]: samples in the batch
  f.dim AS dim,  -- integer: numbers in the state of one sample
  f.device AS device  -- text: device of the forward solve
FROM grad_check AS g
JOIN v_runs AS r ON r.id = g.run_id
LEFT JOIN solve AS f ON f.id = g.solve_id
LEFT JOIN solve AS a ON a.id = g.adjoint_id
