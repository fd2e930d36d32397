-- One row a point: a value of a series that a run logged.
CREATE VIEW v_points AS
SELECT
  s.run_id AS run_id,  -- integer: run that the point belongs to (v_runs.id)
  r.study AS study,  -- text: study of the run
  r.experiment AS experiment,  -- text: experiment of the run
  s.name AS name,  -- text: name of the series
  p.ord AS ord,  -- integer: place among the points of the series, from 0
  p.step AS step,  -- number: step that was logged with it; steps may repeat
  p.value AS value,  -- number: value; NULL when it is not finite
  p.flag AS flag,  -- integer: 0 finite, 1 nan, 2 inf, 3 -inf, 4 not a number
  to_timestamp(p.t) AS time  -- time: when it was logged
FROM point AS p
JOIN series AS s ON s.id = p.series_id
JOIN v_runs AS r ON r.id = s.run_id
