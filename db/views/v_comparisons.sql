-- One row a task and two solvers that both have solved it. A task is what has equal study, experiment, model, problem, seed, tolerance, outer_step and phase, where NULL equals NULL; several solves of a task by one solver (other options, another gradient, another attempt) count as their mean. Each two are there in both orders.
CREATE VIEW v_comparisons AS
WITH numbered AS (
  -- one number for all that is equal, NULL too: what is joined on below must be one column without NULL
  SELECT
    r.study, r.experiment, r.model, s.problem, r.seed, s.reltol, s.outer_step, s.phase, s.solver,
    s.evaluations, s.sample_evaluations, s.seconds, s.converged, s.residual_last,
    DENSE_RANK() OVER (
      ORDER BY r.study, r.experiment, r.model, s.problem, r.seed, s.reltol, s.outer_step, s.phase
    ) AS task
  FROM solve AS s
  JOIN v_runs AS r ON r.id = s.run_id
  WHERE s.solver IS NOT NULL
), solved AS (
  SELECT
    task, solver, study, experiment, model, problem, seed, reltol, outer_step, phase,
    COUNT(*) AS solves,
    AVG(CAST(evaluations AS DOUBLE PRECISION)) AS evaluations,
    AVG(CAST(sample_evaluations AS DOUBLE PRECISION)) AS sample_evaluations,
    AVG(seconds) AS seconds,
    MIN(converged) AS converged,
    MAX(residual_last) AS residual
  FROM numbered
  GROUP BY task, solver, study, experiment, model, problem, seed, reltol, outer_step, phase
), pairs AS MATERIALIZED (
  -- all of them, before any filter: PostgreSQL takes filtered ones for so few that it would compare each with each
  SELECT
    a.study, a.experiment, a.model, a.problem, a.seed, a.reltol, a.outer_step, a.phase,
    a.solver AS left_solver, a.solves AS left_solves, a.evaluations AS left_evaluations,
    a.sample_evaluations AS left_sample_evaluations, a.seconds AS left_seconds,
    a.converged AS left_converged, a.residual AS left_residual,
    b.solver AS right_solver, b.solves AS right_solves, b.evaluations AS right_evaluations,
    b.sample_evaluations AS right_sample_evaluations, b.seconds AS right_seconds,
    b.converged AS right_converged, b.residual AS right_residual
  FROM solved AS a
  JOIN solved AS b ON b.task = a.task AND b.solver <> a.solver
)
SELECT
  p.study AS study,  -- text: study of the runs
  p.experiment AS experiment,  -- text: experiment of the runs
  p.model AS model,  -- text: config model.name of the runs
  p.problem AS problem,  -- text: name of the problem
  p.seed AS seed,  -- integer: seed of the runs
  p.reltol AS reltol,  -- number: relative tolerance of the solves
  p.outer_step AS outer_step,  -- integer: index of the measured point in the run (tolerance, budget or training step), from 0
  p.phase AS phase,  -- text: forward, adjoint or tangent
  p.left_solver AS left_solver,  -- text: one solver; a filter may call it left
  p.right_solver AS right_solver,  -- text: the other one; a filter may call it right
  p.left_solves AS left_solves,  -- integer: solves of the task by the left solver
  p.right_solves AS right_solves,  -- integer: solves of the task by the right solver
  p.left_evaluations AS left_evaluations,  -- number [evaluations]: calls of f on the batch, left
  p.right_evaluations AS right_evaluations,  -- number [evaluations]: calls of f on the batch, right
  p.left_evaluations / NULLIF(p.right_evaluations, 0) AS evaluations_ratio,  -- number: left_evaluations divided by right_evaluations
  p.left_sample_evaluations AS left_sample_evaluations,  -- number [evaluations]: evaluations of single samples, left
  p.right_sample_evaluations AS right_sample_evaluations,  -- number [evaluations]: evaluations of single samples, right
  p.left_seconds AS left_seconds,  -- number [s]: wall time, left
  p.right_seconds AS right_seconds,  -- number [s]: wall time, right
  p.left_seconds / NULLIF(p.right_seconds, 0) AS seconds_ratio,  -- number: left_seconds divided by right_seconds
  p.left_converged AS left_converged,  -- number: share of the samples that converged, 0 to 1, left; the least of several solves
  p.right_converged AS right_converged,  -- number: share of the samples that converged, 0 to 1, right; the least of several solves
  p.left_residual AS left_residual,  -- number: norm of the residual at the returned point, left; the largest of several solves
  p.right_residual AS right_residual  -- number: norm of the residual at the returned point, right; the largest of several solves
FROM pairs AS p
