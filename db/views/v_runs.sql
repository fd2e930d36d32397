-- One row a run: what was run, where, and how it ended.
CREATE VIEW v_runs AS
SELECT
  r.id AS id,  -- integer: number of the run in this store
  r.uuid AS uuid,  -- text: identity of the run in any store
  r.experiment AS experiment,  -- text: name of the Sacred experiment
  r.study AS study,  -- text: study that the run belongs to; NULL for a single run
  r.trial AS trial,  -- text: sha256 of the trial's complete config; equal for attempts at the same trial
  r.status AS status,  -- text: RUNNING, COMPLETED, FAILED (an exception), INTERRUPTED, QUEUED, DIED (its process did), or the status of a custom interrupt
  r.started_at AS started_at,  -- time: start
  r.stopped_at AS stopped_at,  -- time: end; NULL while the run goes on; the last sign of life of one that died
  r.heartbeat_at AS heartbeat_at,  -- time: last sign of life
  r.seconds AS seconds,  -- number [s]: duration, until the last sign of life for a run that goes on or died
  r.seed AS seed,  -- integer: seed
  (SELECT c.txt FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'model.name') AS model,  -- text: config model.name
  (SELECT c.txt FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'solver.name') AS solver,  -- text: config solver.name, the forward solver
  (SELECT c.txt FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'gradient.name') AS gradient,  -- text: config gradient.name; NULL when only the forward solve is measured
  (SELECT c.txt FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'gradient.solver.name') AS adjoint,  -- text: config gradient.solver.name, the solver of the adjoint
  (SELECT c.txt FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'data.name') AS data,  -- text: config data.name
  (SELECT c.num FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'reltol') AS reltol,  -- number: config reltol; NULL when it is a list
  (SELECT CAST(c.num AS BIGINT) FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'max_evaluations') AS max_evaluations,  -- integer [evaluations]: config max_evaluations; NULL when it is a list
  (SELECT CAST(c.num AS BIGINT) FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'train_steps') AS train_steps,  -- integer [steps]: config train_steps, training steps before the measurement
  (SELECT CASE c.txt WHEN 'true' THEN 1 WHEN 'false' THEN 0 END FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'fixed_budget') AS fixed_budget,  -- boolean: config fixed_budget, whether the solver always spends max_evaluations
  (SELECT c.txt FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'dtype') AS dtype,  -- text: config dtype
  (SELECT c.txt FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'device') AS device,  -- text: config device
  (SELECT CAST(c.num AS BIGINT) FROM run_config AS c WHERE c.run_id = r.id AND c.key = 'threads') AS threads,  -- integer [threads]: config threads
  r.config_hash AS config_hash,  -- text: sha256 of the config without its seed; equal for replicates
  r.result_value AS result_value,  -- number: what the run returned, when that is a finite number
  r.fail_type AS fail_type,  -- text: class of the exception that ended the run
  r.fail_message AS fail_message,  -- text: message of that exception
  r.host AS host,  -- text: name of the machine
  e.python AS python,  -- text: version of Python
  e.torch AS torch,  -- text: version of torch
  e.cpu AS cpu,  -- text: processor
  e.gpu AS gpu,  -- text: accelerator; NULL without one
  c.commit_id AS commit_id,  -- text: git commit of the program; NULL outside a checkout
  c.dirty AS dirty,  -- boolean: whether the checkout had changes, which are kept with the run
  (SELECT string_agg(t.tag, ', ') FROM (SELECT tag FROM tag WHERE run_id = r.id ORDER BY tag) AS t) AS tags,  -- text: tags, by name, joined by ', '
  r.comment AS comment  -- text: comment given with the run
FROM run AS r
LEFT JOIN environment AS e ON e.id = r.environment_id
LEFT JOIN code AS c ON c.id = r.code_id
WHERE r.deleted_at IS NULL
