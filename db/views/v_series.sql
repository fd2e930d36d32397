-- One row a series: a metric that a run logged, summed up; its points are in v_points.
CREATE VIEW v_series AS
SELECT
  s.run_id AS run_id,  -- integer: run that the series belongs to (v_runs.id)
  r.study AS study,  -- text: study of the run
  r.experiment AS experiment,  -- text: experiment of the run
  r.status AS status,  -- text: status of the run
  r.seed AS seed,  -- integer: seed of the run
  r.trial AS trial,  -- text: trial of the run
  r.model AS model,  -- text: config model.name of the run
  r.solver AS solver,  -- text: config solver.name of the run, the forward solver
  r.gradient AS gradient,  -- text: config gradient.name of the run
  r.adjoint AS adjoint,  -- text: config gradient.solver.name of the run
  s.id AS series_id,  -- integer: number of the series in this store
  s.name AS name,  -- text: name under which it was logged
  s.n AS n,  -- integer: points
  s.nonfinite AS nonfinite,  -- integer: points that are nan, infinite or no number
  s.last_step AS last_step,  -- number: step of the last finite value
  s.last_value AS last_value,  -- number: last finite value
  s.least AS least,  -- number: least finite value
  s.least_step AS least_step,  -- number: step of the least value, the first of equal ones
  s.largest AS largest  -- number: largest finite value
FROM series AS s
JOIN v_runs AS r ON r.id = s.run_id
