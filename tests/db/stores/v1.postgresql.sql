SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.environment (
    id bigint NOT NULL,
    fingerprint text NOT NULL,
    python text,
    torch text,
    os text,
    cpu text,
    gpu text,
    packages jsonb,
    details jsonb
);
CREATE SEQUENCE public.environment_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.environment_id_seq OWNED BY public.environment.id;
CREATE TABLE public.grad_check (
    id bigint NOT NULL,
    run_id bigint NOT NULL,
    ord bigint NOT NULL,
    outer_step bigint,
    solve_id bigint,
    adjoint_id bigint,
    target text,
    method text,
    options jsonb,
    reference text,
    rel_err double precision,
    cosine double precision,
    norm double precision,
    norm_ref double precision,
    norm_ratio double precision,
    n bigint,
    fwd_residual double precision,
    bwd_residual double precision,
    reltol double precision,
    dtype text,
    kept_bytes bigint,
    history_bytes bigint,
    peak_bytes bigint,
    forward_seconds double precision,
    forward_seconds_q1 double precision,
    forward_seconds_q3 double precision,
    backward_seconds double precision,
    backward_seconds_q1 double precision,
    backward_seconds_q3 double precision,
    products bigint,
    loss double precision,
    loss_ref double precision,
    state_err double precision,
    extra jsonb,
    CONSTRAINT ck_grad_check_backward_seconds_finite CHECK ((abs(backward_seconds) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_backward_seconds_q1_finite CHECK ((abs(backward_seconds_q1) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_backward_seconds_q3_finite CHECK ((abs(backward_seconds_q3) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_bwd_residual_finite CHECK ((abs(bwd_residual) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_cosine_finite CHECK ((abs(cosine) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_forward_seconds_finite CHECK ((abs(forward_seconds) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_forward_seconds_q1_finite CHECK ((abs(forward_seconds_q1) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_forward_seconds_q3_finite CHECK ((abs(forward_seconds_q3) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_fwd_residual_finite CHECK ((abs(fwd_residual) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_history_bytes_count CHECK ((history_bytes >= 0)),
    CONSTRAINT ck_grad_check_kept_bytes_count CHECK ((kept_bytes >= 0)),
    CONSTRAINT ck_grad_check_loss_finite CHECK ((abs(loss) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_loss_ref_finite CHECK ((abs(loss_ref) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_n_count CHECK ((n >= 0)),
    CONSTRAINT ck_grad_check_norm_finite CHECK ((abs(norm) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_norm_ratio_finite CHECK ((abs(norm_ratio) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_norm_ref_finite CHECK ((abs(norm_ref) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_peak_bytes_count CHECK ((peak_bytes >= 0)),
    CONSTRAINT ck_grad_check_products_count CHECK ((products >= 0)),
    CONSTRAINT ck_grad_check_rel_err_finite CHECK ((abs(rel_err) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_reltol_finite CHECK ((abs(reltol) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_grad_check_state_err_finite CHECK ((abs(state_err) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision))
);
CREATE SEQUENCE public.grad_check_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.grad_check_id_seq OWNED BY public.grad_check.id;
CREATE TABLE public.point (
    series_id bigint NOT NULL,
    ord bigint NOT NULL,
    step double precision,
    value double precision,
    flag smallint NOT NULL,
    t double precision,
    CONSTRAINT ck_point_flag CHECK (((flag >= 0) AND (flag <= 4))),
    CONSTRAINT ck_point_step_finite CHECK ((abs(step) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_point_t_finite CHECK ((abs(t) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_point_value_finite CHECK ((abs(value) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision))
);
CREATE TABLE public.run (
    id bigint NOT NULL,
    uuid text NOT NULL,
    experiment text NOT NULL,
    command text,
    study text,
    trial text,
    status text NOT NULL,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    heartbeat_at timestamp with time zone,
    stopped_at timestamp with time zone,
    seconds double precision,
    seed bigint,
    config jsonb NOT NULL,
    config_hash text NOT NULL,
    result jsonb,
    result_value double precision,
    info jsonb,
    meta jsonb,
    comment text,
    fail_type text,
    fail_message text,
    fail_trace text,
    host text,
    pid bigint,
    boot_id text,
    proc_start bigint,
    code jsonb,
    environment_id bigint,
    parent_id bigint,
    CONSTRAINT ck_run_result_value_finite CHECK ((abs(result_value) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_run_seconds_finite CHECK ((abs(seconds) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision))
);
CREATE TABLE public.run_config (
    run_id bigint NOT NULL,
    key text NOT NULL,
    num double precision,
    txt text,
    kind text NOT NULL,
    CONSTRAINT ck_run_config_kind CHECK ((kind = ANY (ARRAY['num'::text, 'str'::text, 'bool'::text, 'null'::text, 'json'::text]))),
    CONSTRAINT ck_run_config_num_finite CHECK ((abs(num) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision))
);
CREATE SEQUENCE public.run_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.run_id_seq OWNED BY public.run.id;
CREATE TABLE public.run_output (
    run_id bigint NOT NULL,
    seq bigint NOT NULL,
    text text NOT NULL
);
CREATE TABLE public.schema_version (
    version bigint NOT NULL,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE public.series (
    id bigint NOT NULL,
    run_id bigint NOT NULL,
    name text NOT NULL
);
CREATE SEQUENCE public.series_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.series_id_seq OWNED BY public.series.id;
CREATE TABLE public.solve (
    id bigint NOT NULL,
    run_id bigint NOT NULL,
    ord bigint NOT NULL,
    outer_step bigint,
    phase text,
    site text,
    problem text,
    solver text,
    options jsonb,
    iterations bigint,
    evaluations bigint,
    sample_evaluations bigint,
    jvps bigint,
    vjps bigint,
    syncs bigint,
    history_bytes bigint,
    retcode text,
    retcodes jsonb,
    converged double precision,
    message text,
    residual_first double precision,
    residual_last double precision,
    residual_min double precision,
    residual_relative double precision,
    seconds double precision,
    seconds_q1 double precision,
    seconds_q3 double precision,
    repeats bigint,
    abstol double precision,
    reltol double precision,
    norm text,
    max_evaluations bigint,
    fixed_budget smallint,
    dtype text,
    device text,
    batch bigint,
    dim bigint,
    extra jsonb,
    CONSTRAINT ck_solve_abstol_finite CHECK ((abs(abstol) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_solve_batch_count CHECK ((batch >= 0)),
    CONSTRAINT ck_solve_converged CHECK (((converged >= (0)::double precision) AND (converged <= (1)::double precision))),
    CONSTRAINT ck_solve_converged_finite CHECK ((abs(converged) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_solve_dim_count CHECK ((dim >= 0)),
    CONSTRAINT ck_solve_evaluations_count CHECK ((evaluations >= 0)),
    CONSTRAINT ck_solve_fixed_budget CHECK ((fixed_budget = ANY (ARRAY[0, 1]))),
    CONSTRAINT ck_solve_history_bytes_count CHECK ((history_bytes >= 0)),
    CONSTRAINT ck_solve_iterations_count CHECK ((iterations >= 0)),
    CONSTRAINT ck_solve_jvps_count CHECK ((jvps >= 0)),
    CONSTRAINT ck_solve_phase CHECK ((phase = ANY (ARRAY['forward'::text, 'adjoint'::text, 'tangent'::text]))),
    CONSTRAINT ck_solve_reltol_finite CHECK ((abs(reltol) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_solve_repeats_count CHECK ((repeats >= 0)),
    CONSTRAINT ck_solve_residual_first_finite CHECK ((abs(residual_first) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_solve_residual_last_finite CHECK ((abs(residual_last) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_solve_residual_min_finite CHECK ((abs(residual_min) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_solve_residual_relative_finite CHECK ((abs(residual_relative) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_solve_sample_evaluations_count CHECK ((sample_evaluations >= 0)),
    CONSTRAINT ck_solve_seconds_finite CHECK ((abs(seconds) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_solve_seconds_q1_finite CHECK ((abs(seconds_q1) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_solve_seconds_q3_finite CHECK ((abs(seconds_q3) <= ('179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)),
    CONSTRAINT ck_solve_syncs_count CHECK ((syncs >= 0)),
    CONSTRAINT ck_solve_vjps_count CHECK ((vjps >= 0))
);
CREATE SEQUENCE public.solve_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.solve_id_seq OWNED BY public.solve.id;
CREATE TABLE public.solve_trace (
    solve_id bigint NOT NULL,
    "column" text NOT NULL,
    n bigint NOT NULL,
    codec text NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT ck_solve_trace_column CHECK (("column" = ANY (ARRAY['evaluations'::text, 'seconds'::text, 'residual'::text, 'active'::text]))),
    CONSTRAINT ck_solve_trace_n_count CHECK ((n >= 0))
);
CREATE VIEW public.v_runs AS
 SELECT r.id,
    r.uuid,
    r.experiment,
    r.study,
    r.trial,
    r.status,
    r.started_at,
    r.stopped_at,
    r.heartbeat_at,
    r.seconds,
    r.seed,
    ( SELECT c.txt
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'model.name'::text))) AS model,
    ( SELECT c.txt
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'solver.name'::text))) AS solver,
    ( SELECT c.txt
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'gradient.name'::text))) AS gradient,
    ( SELECT c.txt
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'gradient.solver.name'::text))) AS adjoint,
    ( SELECT c.txt
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'data.name'::text))) AS data,
    ( SELECT c.num
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'reltol'::text))) AS reltol,
    ( SELECT (c.num)::bigint AS num
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'max_evaluations'::text))) AS max_evaluations,
    ( SELECT (c.num)::bigint AS num
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'train_steps'::text))) AS train_steps,
    ( SELECT
                CASE c.txt
                    WHEN 'true'::text THEN 1
                    WHEN 'false'::text THEN 0
                    ELSE NULL::integer
                END AS "case"
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'fixed_budget'::text))) AS fixed_budget,
    ( SELECT c.txt
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'dtype'::text))) AS dtype,
    ( SELECT c.txt
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'device'::text))) AS device,
    ( SELECT (c.num)::bigint AS num
           FROM public.run_config c
          WHERE ((c.run_id = r.id) AND (c.key = 'threads'::text))) AS threads,
    r.config_hash,
    r.result_value,
    r.fail_type,
    r.fail_message,
    r.host,
    e.python,
    e.torch,
    e.cpu,
    e.gpu,
    r.comment
   FROM (public.run r
     LEFT JOIN public.environment e ON ((e.id = r.environment_id)));
CREATE VIEW public.v_gradients AS
 SELECT g.run_id,
    r.study,
    r.experiment,
    r.status,
    r.seed,
    r.trial,
    r.model,
    r.solver,
    r.adjoint,
    r.train_steps,
    COALESCE(f.max_evaluations, r.max_evaluations) AS max_evaluations,
    COALESCE((f.fixed_budget)::integer, r.fixed_budget) AS fixed_budget,
    g.id AS gradient_id,
    g.ord,
    g.outer_step,
    g.solve_id,
    g.adjoint_id,
    g.target,
    g.method AS gradient,
    g.options,
    g.reference,
    g.rel_err,
    g.cosine,
    g.norm,
    g.norm_ref,
    g.norm_ratio,
    g.n,
    g.fwd_residual,
    g.bwd_residual,
    g.reltol,
    g.dtype,
    g.kept_bytes,
    g.history_bytes,
    g.peak_bytes,
    g.forward_seconds,
    g.forward_seconds_q1,
    g.forward_seconds_q3,
    g.backward_seconds,
    g.backward_seconds_q1,
    g.backward_seconds_q3,
    g.products,
    g.loss,
    g.loss_ref,
    g.state_err,
    g.extra,
    f.evaluations AS forward_evaluations,
    f.iterations AS forward_iterations,
    f.retcode AS forward_retcode,
    f.converged AS forward_converged,
    f.message AS forward_message,
    a.retcode AS adjoint_retcode,
    a.converged AS adjoint_converged,
    a.message AS adjoint_message,
    f.batch,
    f.dim,
    f.device
   FROM (((public.grad_check g
     JOIN public.v_runs r ON ((r.id = g.run_id)))
     LEFT JOIN public.solve f ON ((f.id = g.solve_id)))
     LEFT JOIN public.solve a ON ((a.id = g.adjoint_id)));
CREATE VIEW public.v_solves AS
 SELECT s.run_id,
    r.study,
    r.experiment,
    r.status,
    r.seed,
    r.trial,
    r.model,
    r.solver AS forward_solver,
    r.gradient,
    r.adjoint,
    s.id AS solve_id,
    s.ord,
    s.outer_step,
    s.phase,
    s.site,
    s.problem,
    s.solver,
    s.options,
    s.iterations,
    s.evaluations,
    s.sample_evaluations,
    s.jvps,
    s.vjps,
    s.syncs,
    s.history_bytes,
    s.retcode,
    s.retcodes,
    s.converged,
    s.message,
    s.residual_first,
    s.residual_last,
    s.residual_min,
    s.residual_relative,
    s.seconds,
    s.seconds_q1,
    s.seconds_q3,
    s.repeats,
    s.abstol,
    s.reltol,
    s.norm,
    s.max_evaluations,
    s.fixed_budget,
    s.dtype,
    s.device,
    s.batch,
    s.dim,
    s.extra
   FROM (public.solve s
     JOIN public.v_runs r ON ((r.id = s.run_id)));
ALTER TABLE ONLY public.environment ALTER COLUMN id SET DEFAULT nextval('public.environment_id_seq'::regclass);
ALTER TABLE ONLY public.grad_check ALTER COLUMN id SET DEFAULT nextval('public.grad_check_id_seq'::regclass);
ALTER TABLE ONLY public.run ALTER COLUMN id SET DEFAULT nextval('public.run_id_seq'::regclass);
ALTER TABLE ONLY public.series ALTER COLUMN id SET DEFAULT nextval('public.series_id_seq'::regclass);
ALTER TABLE ONLY public.solve ALTER COLUMN id SET DEFAULT nextval('public.solve_id_seq'::regclass);
INSERT INTO public.environment VALUES
	(1, '96cfbe8ac0338b88cf4bf48f675a0d5da689f5819c7d5f02537fcbc01c3abcb5', '3.11.7', '2.13.0+cpu', 'Linux-6.18.44-fc-v595-x86_64-with-glibc2.36', 'AMD EPYC', NULL, '{"numpy": "2.4.6", "scipy": "1.17.1", "torch": "2.13.0+cpu", "sacred": "0.8.7", "deq-lab": "0.1.0", "sqlalchemy": "2.1.9"}', '{"cores": 2, "threads": 1}'),
	(2, '831da6fe5c05cbc87362cff6acf2dbff9511c1d9651cd194ec8677f6f3976aca', '3.11.7', '2.13.0', 'Linux-6.18.44-fc-v595-x86_64-with-glibc2.36', 'AMD EPYC', NULL, '{"numpy": "2.4.6", "sacred": "0.8.7"}', NULL),
	(3, 'cf6443760d8b92c180a4d96d0ca80e3b2401b33dd4d5dd13afb1929f969babac', '3.11.7', NULL, 'Linux-6.18.44-fc-v595-x86_64-with-glibc2.36', 'AMD EPYC', NULL, '{"numpy": "2.4.6", "sacred": "0.8.7"}', NULL);
INSERT INTO public.grad_check VALUES
	(1, 1, 0, 0, 1, 2, 'parameters', 'implicit', '{"name": "implicit", "reltol": null, "solver": {"name": "gmres", "restart": null}, "on_failure": "warn", "warm_start": false, "certificate": true, "max_products": 100, "precondition": null}', 'float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian', 0.0040456494604638946, 0.9999926354952396, 1.8416414600879758, 1.8393007550699916, 1.0012726059137051, 584, 0.008325347676873207, 0.0028316655661910772, 0.01, 'float32', 640, 2696, NULL, 0.002982449997944059, 0.002982449997944059, 0.002982449997944059, 0.004449799998837989, 0.004449799998837989, 0.004449799998837989, 6, 2.409127712249756, 2.4107485750805813, 0.0044366705851816395, NULL),
	(2, 1, 1, 1, 3, 4, 'parameters', 'implicit', '{"name": "implicit", "reltol": null, "solver": {"name": "gmres", "restart": null}, "on_failure": "warn", "warm_start": false, "certificate": true, "max_products": 100, "precondition": null}', 'float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian', 4.677201154425679e-06, 0.9999999999891216, 1.839301387859999, 1.8393007550699916, 1.0000003440383558, 584, 1.2815892660000827e-05, 1.3568424606091867e-08, 1e-05, 'float32', 640, 9480, NULL, 0.004537460001301952, 0.004537460001301952, 0.004537460001301952, 0.004795562002982479, 0.004795562002982479, 0.004795562002982479, 9, 2.4107444286346436, 2.4107485750805813, 1.0412260046197435e-05, NULL),
	(3, 2, 0, 0, 5, NULL, 'parameters', 'unrolled', '{"last": null, "name": "unrolled"}', 'float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian', 0.02782954793300343, 0.9996487509758777, 1.8542735031905502, 1.8393007550699916, 1.0081404566813157, 584, 0.008325347676873207, NULL, 0.01, 'float32', 6988, 1640, NULL, 0.0033502460028103087, 0.0033502460028103087, 0.0033502460028103087, 0.002227769000455737, 0.002227769000455737, 0.002227769000455737, NULL, 2.409127712249756, 2.4107485750805813, 0.0044366705851816395, NULL),
	(4, 2, 1, 1, 6, NULL, 'parameters', 'unrolled', '{"last": null, "name": "unrolled"}', 'float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian', 0.00019099310725969595, 0.999999982071848, 1.8393465964501814, 1.8393007550699916, 1.0000249232650307, 584, 1.2815892660000827e-05, NULL, 1e-05, 'float32', 23180, 4008, NULL, 0.005809099002362927, 0.005809099002362927, 0.005809099002362927, 0.003496584002277814, 0.003496584002277814, 0.003496584002277814, NULL, 2.4107444286346436, 2.4107485750805813, 1.0412260046197435e-05, NULL),
	(5, 3, 0, 0, 7, 8, 'parameters', 'implicit', '{"name": "implicit", "reltol": null, "solver": {"name": "gmres", "restart": null}, "on_failure": "warn", "warm_start": false, "certificate": true, "max_products": 100, "precondition": null}', 'float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian', 0.004233122231642817, 0.9999922275593702, 1.8421207154348351, 1.8393007550699916, 1.0015331697967667, 584, 0.008775832131505013, 0.0028325445018708706, 0.01, 'float32', 640, 2424, NULL, 0.0035765619977610186, 0.0035765619977610186, 0.0035765619977610186, 0.004331662999902619, 0.004331662999902619, 0.004331662999902619, 6, 2.4078071117401123, 2.4107485750805813, 0.0055249807883258565, NULL),
	(6, 3, 1, 1, 9, 10, 'parameters', 'implicit', '{"name": "implicit", "reltol": null, "solver": {"name": "gmres", "restart": null}, "on_failure": "warn", "warm_start": false, "certificate": true, "max_products": 100, "precondition": null}', 'float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian', 3.0732051563075506e-06, 0.9999999999952871, 1.8393010084902757, 1.8393007550699916, 1.0000001377807752, 584, 1.1042725418519694e-05, 3.1080762852297994e-08, 1e-05, 'float32', 640, 3320, NULL, 0.004188430997601245, 0.004188430997601245, 0.004188430997601245, 0.004842212998482864, 0.004842212998482864, 0.004842212998482864, 9, 2.4107489585876465, 2.4107485750805813, 6.7935373313800665e-06, NULL),
	(7, 4, 0, 0, 11, NULL, 'parameters', 'unrolled', '{"last": null, "name": "unrolled"}', 'float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian', 0.031090802200393383, 0.9996154011492232, 1.8644476897096272, 1.8393007550699916, 1.01367200800104, 584, 0.0087758032605052, NULL, 0.01, 'float32', 8676, 1368, NULL, 0.0032607739995000884, 0.0032607739995000884, 0.0032607739995000884, 0.0021505439981410746, 0.0021505439981410746, 0.0021505439981410746, NULL, 2.407806873321533, 2.4107485750805813, 0.005524999916014955, NULL),
	(8, 4, 1, 1, 12, NULL, 'parameters', 'unrolled', '{"last": null, "name": "unrolled"}', 'float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian', 1.2164997892988018e-05, 0.9999999999520205, 1.8393140219245934, 1.8393007550699916, 1.0000072129881779, 584, 1.1116076166217681e-05, NULL, 1e-05, 'float32', 32364, 2872, NULL, 0.006673561998468358, 0.006673561998468358, 0.006673561998468358, 0.002986405001138337, 0.002986405001138337, 0.002986405001138337, NULL, 2.4107489585876465, 2.4107485750805813, 6.846274085323089e-06, NULL),
	(9, 6, 0, NULL, 13, 14, NULL, 'implicit', NULL, NULL, NULL, 1, 1e-300, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{"why": "a test", "nonfinite": {"rel_err": "inf"}}'),
	(10, 6, 1, NULL, NULL, NULL, 'θ', 'shine', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	(11, 8, 0, 0, 16, NULL, 'x', 'implicit', NULL, NULL, 3.5135816047019714e-05, NULL, 1.5554643927606409, 1.5554356429362, NULL, 4, NULL, NULL, 0.001, NULL, 32, NULL, NULL, NULL, NULL, NULL, 0.00010158100121770985, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	(12, 8, 1, 1, 17, NULL, 'x', 'implicit', NULL, NULL, 5.920069373563882e-08, NULL, 1.555435599831353, 1.5554356429362, NULL, 4, NULL, NULL, 1e-06, NULL, 32, NULL, NULL, NULL, NULL, NULL, 5.5251999583560973e-05, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	(13, 9, 0, 0, 18, NULL, 'x', 'implicit', NULL, NULL, 5.4503162521174635e-05, NULL, 1.4469951862152375, 1.4470537151322214, NULL, 4, NULL, NULL, 0.001, NULL, 32, NULL, NULL, NULL, NULL, NULL, 6.525700155179948e-05, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	(14, 9, 1, 1, 19, NULL, 'x', 'implicit', NULL, NULL, 4.6832448049724734e-08, NULL, 1.4470537614185326, 1.4470537151322214, NULL, 4, NULL, NULL, 1e-06, NULL, 32, NULL, NULL, NULL, NULL, NULL, 4.725000326288864e-05, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	(15, 10, 0, 0, 20, NULL, 'x', 'implicit', NULL, NULL, 1.3054476312057193e-07, NULL, 1.5554355020154673, 1.5554356429362, NULL, 4, NULL, NULL, 0.001, NULL, 32, NULL, NULL, NULL, NULL, NULL, 7.415000072796829e-05, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	(16, 10, 1, 1, 21, NULL, 'x', 'implicit', NULL, NULL, 1.5553304872351718e-14, NULL, 1.5554356429361866, 1.5554356429362, NULL, 4, NULL, NULL, 1e-06, NULL, 32, NULL, NULL, NULL, NULL, NULL, 4.9824000598164275e-05, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.point VALUES
	(1, 0, 0, 3, 0, 1795528003.113573),
	(1, 1, 0, NULL, 1, 1795528003.113589),
	(1, 2, 1, 1, 0, 1795528003.113592),
	(1, 3, 1, NULL, 2, 1795528003.113594),
	(1, 4, 2, 2, 0, 1795528003.113597),
	(1, 5, 2, 1, 0, 1795528003.113599),
	(1, 6, 3, NULL, 3, 1795528003.113605),
	(2, 0, 0, 1, 0, 1795528003.113613),
	(2, 1, 0.5, 0.5, 0, 1795528003.113619),
	(2, 2, 1, 0.3333333333333333, 0, 1795528003.113621),
	(2, 3, 1.5, 0.25, 0, 1795528003.113623),
	(2, 4, 2, 0.2, 0, 1795528003.113625),
	(2, 5, 2.5, 0.16666666666666666, 0, 1795528003.113626),
	(2, 6, 3, 0.14285714285714285, 0, 1795528003.113628),
	(2, 7, 3.5, 0.125, 0, 1795528003.113629),
	(2, 8, 4, 0.1111111111111111, 0, 1795528003.11363),
	(2, 9, 4.5, 0.1, 0, 1795528003.113632),
	(2, 10, 5, 0.09090909090909091, 0, 1795528003.113633),
	(2, 11, 5.5, 0.08333333333333333, 0, 1795528003.113635),
	(2, 12, 6, 0.07692307692307693, 0, 1795528003.113636),
	(2, 13, 6.5, 0.07142857142857142, 0, 1795528003.113637),
	(2, 14, 7, 0.06666666666666667, 0, 1795528003.113639),
	(2, 15, 7.5, 0.0625, 0, 1795528003.11364),
	(2, 16, 8, 0.058823529411764705, 0, 1795528003.113641),
	(2, 17, 8.5, 0.05555555555555555, 0, 1795528003.113643),
	(2, 18, 9, 0.05263157894736842, 0, 1795528003.113644),
	(2, 19, 9.5, 0.05, 0, 1795528003.113646),
	(2, 20, 10, 0.047619047619047616, 0, 1795528003.113647),
	(2, 21, 10.5, 0.045454545454545456, 0, 1795528003.113648),
	(2, 22, 11, 0.043478260869565216, 0, 1795528003.113649),
	(2, 23, 11.5, 0.041666666666666664, 0, 1795528003.113651),
	(2, 24, 12, 0.04, 0, 1795528003.113652),
	(2, 25, 12.5, 0.038461538461538464, 0, 1795528003.113653),
	(2, 26, 13, 0.037037037037037035, 0, 1795528003.113655),
	(2, 27, 13.5, 0.03571428571428571, 0, 1795528003.113657),
	(2, 28, 14, 0.034482758620689655, 0, 1795528003.113658),
	(2, 29, 14.5, 0.03333333333333333, 0, 1795528003.113659),
	(2, 30, 15, 0.03225806451612903, 0, 1795528003.113661),
	(2, 31, 15.5, 0.03125, 0, 1795528003.113662),
	(2, 32, 16, 0.030303030303030304, 0, 1795528003.113663),
	(2, 33, 16.5, 0.029411764705882353, 0, 1795528003.113665),
	(2, 34, 17, 0.02857142857142857, 0, 1795528003.113673),
	(2, 35, 17.5, 0.027777777777777776, 0, 1795528003.113674),
	(2, 36, 18, 0.02702702702702703, 0, 1795528003.113675),
	(2, 37, 18.5, 0.02631578947368421, 0, 1795528003.113677),
	(2, 38, 19, 0.02564102564102564, 0, 1795528003.113678),
	(2, 39, 19.5, 0.025, 0, 1795528003.113679),
	(2, 40, 20, 0.024390243902439025, 0, 1795528003.11368),
	(2, 41, 20.5, 0.023809523809523808, 0, 1795528003.113682),
	(2, 42, 21, 0.023255813953488372, 0, 1795528003.113683),
	(2, 43, 21.5, 0.022727272727272728, 0, 1795528003.113684),
	(2, 44, 22, 0.022222222222222223, 0, 1795528003.113686),
	(2, 45, 22.5, 0.021739130434782608, 0, 1795528003.113687),
	(2, 46, 23, 0.02127659574468085, 0, 1795528003.113688),
	(2, 47, 23.5, 0.020833333333333332, 0, 1795528003.11369),
	(2, 48, 24, 0.02040816326530612, 0, 1795528003.113691),
	(2, 49, 24.5, 0.02, 0, 1795528003.113692),
	(3, 0, 0, NULL, 1, 1795528003.113694),
	(4, 0, 0, NULL, 4, 1795528003.113696),
	(5, 0, 0, NULL, 2, 1795528003.198597),
	(6, 0, 0, 1, 0, 1795528004.183434);
INSERT INTO public.run VALUES
	(2, '900b284a-f0c1-4f90-9f2c-57f2a2e55562', 'compare', 'main', 'small', '03b065eea55fffe716467d436231e4b0bac2b266771400b65fdc1e0e23cb3f46', 'COMPLETED', NULL, '2026-11-24 13:46:40.307761+00', '2026-11-24 13:46:40.369436+00', '2026-11-24 13:46:40.369436+00', 0.061675, 0, '{"data": {"name": "digits"}, "norm": "l2", "seed": 0, "batch": 2, "dtype": "float32", "model": {"gain": 0.95, "name": "mlp", "width": 8, "inputs": 64, "classes": 10, "injection": 1.0}, "abstol": 0.0, "device": "cpu", "reltol": [0.01, 0.00001], "solver": {"kind": "good", "name": "broyden", "window": null, "reduction": "svd", "line_search": false}, "repeats": 1, "threads": 1, "autocast": null, "gradient": {"last": null, "name": "unrolled"}, "data_sha256": "b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641", "train_steps": 0, "fixed_budget": false, "learning_rate": 0.01, "repeat_seconds": 0.001, "max_evaluations": 50}', '09397c6038df245ab245e8767a969fb4ebe0765e6d191b11385bb930a66a66b2', '{"seconds": 0.005809099002362927, "evaluations": 11.0, "gradient_error": 0.00019099310725969595}', NULL, NULL, '{"command": "main", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": null, "--comment": null, "--tiny_db": null, "--loglevel": "ERROR", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": [], "config_updates": {"data": {"name": "digits"}, "norm": "l2", "seed": 0, "batch": 2, "dtype": "float32", "model": {"gain": 0.95, "name": "mlp", "width": 8, "inputs": 64, "classes": 10, "injection": 1.0}, "abstol": 0.0, "device": "cpu", "reltol": [0.01, 0.00001], "solver": {"kind": "good", "name": "broyden", "window": null, "reduction": "svd", "line_search": false}, "repeats": 1, "threads": 1, "autocast": null, "gradient": {"last": null, "name": "unrolled"}, "data_sha256": "b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641", "train_steps": 0, "fixed_budget": false, "learning_rate": 0.01, "repeat_seconds": 0.001, "max_evaluations": 50}}', NULL, NULL, NULL, NULL, 'lab', 30080, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2797358, '{"sources": [["compare.py", "f56ac4cc0157b5cc99f8a4e55cfcf7da"]], "base_dir": "/opt/deq-lab/experiments", "mainfile": "compare.py", "repositories": [{"url": "file:///opt/deq-lab", "dirty": false, "commit": "6a41b1b7a26b97033bfa505c659521e1c91fdcb4"}]}', 1, NULL),
	(1, '6d76e57d-2d43-4f72-8452-f1ab1a8d5d6f', 'compare', 'main', 'small', '85e27a7987f4ce8a905a74b7a26190d0daa7e0434b49be40a7a4e99e89e2d466', 'COMPLETED', NULL, '2026-11-24 13:46:40.197561+00', '2026-11-24 13:46:40.280862+00', '2026-11-24 13:46:40.280862+00', 0.083301, 0, '{"data": {"name": "digits"}, "norm": "l2", "seed": 0, "batch": 2, "dtype": "float32", "model": {"gain": 0.95, "name": "mlp", "width": 8, "inputs": 64, "classes": 10, "injection": 1.0}, "abstol": 0.0, "device": "cpu", "reltol": [0.01, 0.00001], "solver": {"kind": "good", "name": "broyden", "window": null, "reduction": "svd", "line_search": false}, "repeats": 1, "threads": 1, "autocast": null, "gradient": {"name": "implicit", "reltol": null, "solver": {"name": "gmres", "restart": null}, "on_failure": "warn", "warm_start": false, "certificate": true, "max_products": 100, "precondition": null}, "data_sha256": "b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641", "train_steps": 0, "fixed_budget": false, "learning_rate": 0.01, "repeat_seconds": 0.001, "max_evaluations": 50}', '491bd9e36b63b505234cb17712b241b82d808e55c3e7305ba2bac38ec7707837', '{"seconds": 0.004537460001301952, "evaluations": 11.0, "gradient_error": 0.000004677201154425679}', NULL, NULL, '{"command": "main", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": null, "--comment": null, "--tiny_db": null, "--loglevel": "ERROR", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": [], "config_updates": {"data": {"name": "digits"}, "norm": "l2", "seed": 0, "batch": 2, "dtype": "float32", "model": {"gain": 0.95, "name": "mlp", "width": 8, "inputs": 64, "classes": 10, "injection": 1.0}, "abstol": 0.0, "device": "cpu", "reltol": [0.01, 0.00001], "solver": {"kind": "good", "name": "broyden", "window": null, "reduction": "svd", "line_search": false}, "repeats": 1, "threads": 1, "autocast": null, "gradient": {"name": "implicit", "reltol": null, "solver": {"name": "gmres", "restart": null}, "on_failure": "warn", "warm_start": false, "certificate": true, "max_products": 100, "precondition": null}, "data_sha256": "b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641", "train_steps": 0, "fixed_budget": false, "learning_rate": 0.01, "repeat_seconds": 0.001, "max_evaluations": 50}}', NULL, NULL, NULL, NULL, 'lab', 30080, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2797358, '{"sources": [["compare.py", "f56ac4cc0157b5cc99f8a4e55cfcf7da"]], "base_dir": "/opt/deq-lab/experiments", "mainfile": "compare.py", "repositories": [{"url": "file:///opt/deq-lab", "dirty": false, "commit": "6a41b1b7a26b97033bfa505c659521e1c91fdcb4"}]}', 1, NULL),
	(3, '71c6e40b-bbc8-46d3-a4a1-a5839b378e7e', 'compare', 'main', 'small', 'a3e55e6d87cc3994c1ca3bbc06c4eee1a6e32450dd5ac59c8baba64e0221d31d', 'COMPLETED', NULL, '2026-11-24 13:46:40.39668+00', '2026-11-24 13:46:40.467122+00', '2026-11-24 13:46:40.467122+00', 0.070442, 0, '{"data": {"name": "digits"}, "norm": "l2", "seed": 0, "batch": 2, "dtype": "float32", "model": {"gain": 0.95, "name": "mlp", "width": 8, "inputs": 64, "classes": 10, "injection": 1.0}, "abstol": 0.0, "device": "cpu", "reltol": [0.01, 0.00001], "solver": {"kind": "II", "name": "anderson", "ridge": null, "filter": 0.0, "mixing": 1.0, "window": 10, "restart": null}, "repeats": 1, "threads": 1, "autocast": null, "gradient": {"name": "implicit", "reltol": null, "solver": {"name": "gmres", "restart": null}, "on_failure": "warn", "warm_start": false, "certificate": true, "max_products": 100, "precondition": null}, "data_sha256": "b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641", "train_steps": 0, "fixed_budget": false, "learning_rate": 0.01, "repeat_seconds": 0.001, "max_evaluations": 50}', '69e491bee4a894b76e730a9625d2b2b1adc54ebd9fe3677b9acc46524b11a71e', '{"seconds": 0.004188430997601245, "evaluations": 11.0, "gradient_error": 0.0000030732051563075506}', NULL, NULL, '{"command": "main", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": null, "--comment": null, "--tiny_db": null, "--loglevel": "ERROR", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": [], "config_updates": {"data": {"name": "digits"}, "norm": "l2", "seed": 0, "batch": 2, "dtype": "float32", "model": {"gain": 0.95, "name": "mlp", "width": 8, "inputs": 64, "classes": 10, "injection": 1.0}, "abstol": 0.0, "device": "cpu", "reltol": [0.01, 0.00001], "solver": {"kind": "II", "name": "anderson", "ridge": null, "filter": 0.0, "mixing": 1.0, "window": 10, "restart": null}, "repeats": 1, "threads": 1, "autocast": null, "gradient": {"name": "implicit", "reltol": null, "solver": {"name": "gmres", "restart": null}, "on_failure": "warn", "warm_start": false, "certificate": true, "max_products": 100, "precondition": null}, "data_sha256": "b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641", "train_steps": 0, "fixed_budget": false, "learning_rate": 0.01, "repeat_seconds": 0.001, "max_evaluations": 50}}', NULL, NULL, NULL, NULL, 'lab', 30080, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2797358, '{"sources": [["compare.py", "f56ac4cc0157b5cc99f8a4e55cfcf7da"]], "base_dir": "/opt/deq-lab/experiments", "mainfile": "compare.py", "repositories": [{"url": "file:///opt/deq-lab", "dirty": false, "commit": "6a41b1b7a26b97033bfa505c659521e1c91fdcb4"}]}', 1, NULL),
	(4, '542a93ff-924f-4273-84c4-5e537f9fad35', 'compare', 'main', 'small', '2f68f458b68253929d23855f907d9cf64d945a6a48468ff6cde3bbd03cfe5d1f', 'COMPLETED', NULL, '2026-11-24 13:46:40.495844+00', '2026-11-24 13:46:40.554842+00', '2026-11-24 13:46:40.554842+00', 0.058998, 0, '{"data": {"name": "digits"}, "norm": "l2", "seed": 0, "batch": 2, "dtype": "float32", "model": {"gain": 0.95, "name": "mlp", "width": 8, "inputs": 64, "classes": 10, "injection": 1.0}, "abstol": 0.0, "device": "cpu", "reltol": [0.01, 0.00001], "solver": {"kind": "II", "name": "anderson", "ridge": null, "filter": 0.0, "mixing": 1.0, "window": 10, "restart": null}, "repeats": 1, "threads": 1, "autocast": null, "gradient": {"last": null, "name": "unrolled"}, "data_sha256": "b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641", "train_steps": 0, "fixed_budget": false, "learning_rate": 0.01, "repeat_seconds": 0.001, "max_evaluations": 50}', '6454f8dec2e0c6eb4b54488551230091d6eeac74a63128a6849dab3bd56313e2', '{"seconds": 0.006673561998468358, "evaluations": 11.0, "gradient_error": 0.000012164997892988018}', NULL, NULL, '{"command": "main", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": null, "--comment": null, "--tiny_db": null, "--loglevel": "ERROR", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": [], "config_updates": {"data": {"name": "digits"}, "norm": "l2", "seed": 0, "batch": 2, "dtype": "float32", "model": {"gain": 0.95, "name": "mlp", "width": 8, "inputs": 64, "classes": 10, "injection": 1.0}, "abstol": 0.0, "device": "cpu", "reltol": [0.01, 0.00001], "solver": {"kind": "II", "name": "anderson", "ridge": null, "filter": 0.0, "mixing": 1.0, "window": 10, "restart": null}, "repeats": 1, "threads": 1, "autocast": null, "gradient": {"last": null, "name": "unrolled"}, "data_sha256": "b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641", "train_steps": 0, "fixed_budget": false, "learning_rate": 0.01, "repeat_seconds": 0.001, "max_evaluations": 50}}', NULL, NULL, NULL, NULL, 'lab', 30080, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2797358, '{"sources": [["compare.py", "f56ac4cc0157b5cc99f8a4e55cfcf7da"]], "base_dir": "/opt/deq-lab/experiments", "mainfile": "compare.py", "repositories": [{"url": "file:///opt/deq-lab", "dirty": false, "commit": "6a41b1b7a26b97033bfa505c659521e1c91fdcb4"}]}', 1, NULL),
	(6, '36c70e9b-fce9-44ac-8a13-e833a5020ac0', 'compare', 'main', 'odd', 'second', 'COMPLETED', NULL, '2026-11-24 13:46:43.140103+00', '2026-11-24 13:46:43.170703+00', '2026-11-24 13:46:43.170703+00', 0.0306, 7, '{"a": {"b": [1, {"$float": "inf"}], "long": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "text": "1e-3"}, "data": null, "seed": 7, "batch": 4, "model": {"name": "cosine"}, "reltol": [0.001, 0.000001], "solver": {"name": "picard", "mixing": 1.0}, "gradient": {"name": "implicit", "solver": {"name": "dense"}}, "fixed_budget": false, "max_evaluations": 100}', '7cfdc9c27d9ed240ea17849f6f872639e1851d2307720f042e8ff0761c55a390', NULL, NULL, NULL, '{"id": "not-a-uuid", "command": "main", "comment": "a comment – ☃", "options": {"--id": "not-a-uuid", "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": null, "--comment": "a comment – ☃", "--tiny_db": null, "--loglevel": "CRITICAL", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": []}', 'a comment – ☃', NULL, NULL, NULL, 'lab', 29974, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2796823, '{"sources": [["toy.py", "204ebc879bd960132215e3ca837989ec"]], "base_dir": "/opt/deq-lab/tests/db", "mainfile": "toy.py", "repositories": []}', 3, 5),
	(5, '003e1294-bdc5-49e3-96c8-f9d6c7681931', 'compare', 'odd', 'odd', 'first', 'COMPLETED', NULL, '2026-11-24 13:46:43.028848+00', '2026-11-24 13:46:43.113952+00', '2026-11-24 13:46:43.113952+00', 0.085104, 824795491, '{"data": null, "seed": 824795491, "batch": 4, "model": {"name": "cosine"}, "reltol": [0.001, 0.000001], "solver": {"name": "picard", "mixing": 1.0}, "gradient": {"name": "implicit", "solver": {"name": "dense"}}, "fixed_budget": false, "max_evaluations": 100}', '705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7', '{"loss": {"$float": "nan"}, "steps": 50, "vector": [0, 1, 2]}', NULL, '{"note": {"of": [1, {"$float": "nan"}, "naïve – ☃"], "nul": "a�b"}}', '{"command": "odd", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": "sys", "--comment": null, "--tiny_db": null, "--loglevel": "ERROR", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": []}', NULL, NULL, NULL, NULL, 'lab', 29974, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2796823, '{"sources": [["toy.py", "204ebc879bd960132215e3ca837989ec"]], "base_dir": "/opt/deq-lab/tests/db", "mainfile": "toy.py", "repositories": []}', 2, NULL),
	(7, 'ca1f875c-c888-489e-8708-09f58dc2ecbb', 'compare', 'diverges', NULL, NULL, 'DIVERGED', NULL, '2026-11-24 13:46:43.181373+00', '2026-11-24 13:46:43.20204+00', '2026-11-24 13:46:43.20204+00', 0.020667, 347712783, '{"data": null, "seed": 347712783, "batch": 4, "model": {"name": "cosine"}, "reltol": [0.001, 0.000001], "solver": {"name": "picard", "mixing": 1.0}, "gradient": {"name": "implicit", "solver": {"name": "dense"}}, "fixed_budget": false, "max_evaluations": 100}', '705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7', NULL, NULL, NULL, '{"command": "diverges", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": "no", "--comment": null, "--tiny_db": null, "--loglevel": "CRITICAL", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": []}', NULL, 'Diverged', '', NULL, 'lab', 29974, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2796823, '{"sources": [["toy.py", "204ebc879bd960132215e3ca837989ec"]], "base_dir": "/opt/deq-lab/tests/db", "mainfile": "toy.py", "repositories": []}', 3, NULL),
	(8, '644bf571-aee7-45d5-8e00-cc3ed826d8b2', 'compare', 'main', 'demo', 'picard-0', 'COMPLETED', NULL, '2026-11-24 13:46:43.210219+00', '2026-11-24 13:46:43.236807+00', '2026-11-24 13:46:43.236807+00', 0.026588, 0, '{"data": null, "seed": 0, "batch": 4, "model": {"name": "cosine"}, "reltol": [0.001, 0.000001], "solver": {"name": "picard", "mixing": 1.0}, "gradient": {"name": "implicit", "solver": {"name": "dense"}}, "fixed_budget": false, "max_evaluations": 100}', '705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7', NULL, NULL, NULL, '{"command": "main", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": null, "--comment": null, "--tiny_db": null, "--loglevel": "ERROR", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": []}', NULL, NULL, NULL, NULL, 'lab', 29974, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2796823, '{"sources": [["toy.py", "204ebc879bd960132215e3ca837989ec"]], "base_dir": "/opt/deq-lab/tests/db", "mainfile": "toy.py", "repositories": []}', 3, NULL),
	(9, '5b1cd617-44ac-45ce-8062-8a6618428c37', 'compare', 'main', 'demo', 'picard-1', 'COMPLETED', NULL, '2026-11-24 13:46:43.246297+00', '2026-11-24 13:46:43.27284+00', '2026-11-24 13:46:43.27284+00', 0.026543, 1, '{"data": null, "seed": 1, "batch": 4, "model": {"name": "cosine"}, "reltol": [0.001, 0.000001], "solver": {"name": "picard", "mixing": 1.0}, "gradient": {"name": "implicit", "solver": {"name": "dense"}}, "fixed_budget": false, "max_evaluations": 100}', '705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7', NULL, NULL, NULL, '{"command": "main", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": null, "--comment": null, "--tiny_db": null, "--loglevel": "ERROR", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": []}', NULL, NULL, NULL, NULL, 'lab', 29974, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2796823, '{"sources": [["toy.py", "204ebc879bd960132215e3ca837989ec"]], "base_dir": "/opt/deq-lab/tests/db", "mainfile": "toy.py", "repositories": []}', 3, NULL),
	(10, '7c6167cb-ee73-475e-8978-9c493c4c37e9', 'compare', 'main', 'demo', 'newton-0', 'COMPLETED', NULL, '2026-11-24 13:46:43.282197+00', '2026-11-24 13:46:43.307344+00', '2026-11-24 13:46:43.307344+00', 0.025147, 0, '{"data": null, "seed": 0, "batch": 4, "model": {"name": "cosine"}, "reltol": [0.001, 0.000001], "solver": {"name": "newton", "mixing": 1.0}, "gradient": {"name": "implicit", "solver": {"name": "dense"}}, "fixed_budget": false, "max_evaluations": 100}', 'daca1ec68bd9afc08e44a6b53b163fac46c26bf81156bf3949bd3fb5fb8b30d5', NULL, NULL, NULL, '{"command": "main", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": null, "--comment": null, "--tiny_db": null, "--loglevel": "ERROR", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": []}', NULL, NULL, NULL, NULL, 'lab', 29974, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2796823, '{"sources": [["toy.py", "204ebc879bd960132215e3ca837989ec"]], "base_dir": "/opt/deq-lab/tests/db", "mainfile": "toy.py", "repositories": []}', 3, NULL),
	(11, '5eeebad1-9249-42ff-8a44-ef13ab30b18f', 'compare', 'odd', 'demo', 'queued', 'QUEUED', '2026-11-24 13:46:43.317049+00', NULL, NULL, NULL, NULL, 906691060, '{"data": null, "seed": 906691060, "batch": 4, "model": {"name": "cosine"}, "reltol": [0.001, 0.000001], "solver": {"name": "picard", "mixing": 1.0}, "gradient": {"name": "implicit", "solver": {"name": "dense"}}, "fixed_budget": false, "max_evaluations": 100}', '705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7', NULL, NULL, NULL, '{"command": "odd", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": true, "--capture": null, "--comment": null, "--tiny_db": null, "--loglevel": "ERROR", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "queue_time": "2026-11-24T13:46:43.317049", "named_configs": []}', NULL, NULL, NULL, NULL, 'lab', 29974, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2796823, '{"sources": [["toy.py", "204ebc879bd960132215e3ca837989ec"]], "base_dir": "/opt/deq-lab/tests/db", "mainfile": "toy.py", "repositories": []}', 3, NULL),
	(12, 'd19d9486-ad4c-438a-8504-ac6e6d6ab362', 'compare', 'fails', 'demo', 'ends', 'FAILED', NULL, '2026-11-24 13:46:43.338232+00', '2026-11-24 13:46:43.356111+00', '2026-11-24 13:46:43.356111+00', 0.017879, 745254916, '{"data": null, "seed": 745254916, "batch": 4, "model": {"name": "cosine"}, "reltol": [0.001, 0.000001], "solver": {"name": "picard", "mixing": 1.0}, "gradient": {"name": "implicit", "solver": {"name": "dense"}}, "fixed_budget": false, "max_evaluations": 100}', '705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7', NULL, NULL, NULL, '{"command": "fails", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": "no", "--comment": null, "--tiny_db": null, "--loglevel": "CRITICAL", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": []}', NULL, 'ArithmeticError', 'the state is not finite', 'Traceback (most recent call last):
  File "/opt/deq-lab/.venv/lib/python3.11/site-packages/sacred/config/captured_function.py", line 42, in captured_function
    result = wrapped(*args, **kwargs)
             ^^^^^^^^^^^^^^^^^^^^^^^^
  File "/opt/make/make.py", line 143, in fails
    raise ArithmeticError("the state is not finite")
ArithmeticError: the state is not finite
', 'lab', 29974, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2796823, '{"sources": [["toy.py", "204ebc879bd960132215e3ca837989ec"]], "base_dir": "/opt/deq-lab/tests/db", "mainfile": "toy.py", "repositories": []}', 3, NULL),
	(14, 'f219ad51-a24b-46bb-aab2-2fbd6ed80218', 'compare', 'main', 'demo', 'killed', 'RUNNING', NULL, '2026-11-24 13:46:44.10819+00', '2026-11-24 13:46:44.183449+00', NULL, 0.075259, 279612652, '{"data": null, "seed": 279612652, "batch": 4, "model": {"name": "cosine"}, "reltol": [0.001, 0.000001], "solver": {"name": "picard", "mixing": 1.0}, "gradient": {"name": "implicit", "solver": {"name": "dense"}}, "fixed_budget": false, "max_evaluations": 100}', '705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7', NULL, NULL, NULL, '{"command": "main", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": "no", "--comment": null, "--tiny_db": null, "--loglevel": "ERROR", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": []}', NULL, NULL, NULL, NULL, 'lab', 30230, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2798168, '{"sources": [["toy.py", "204ebc879bd960132215e3ca837989ec"]], "base_dir": "/opt/deq-lab/tests/db", "mainfile": "toy.py", "repositories": []}', 3, NULL),
	(13, '529e3e6d-46c1-4541-b783-e89497c15825', 'compare', 'interrupted', 'demo', 'ends', 'INTERRUPTED', NULL, '2026-11-24 13:46:43.36271+00', '2026-11-24 13:46:43.378876+00', '2026-11-24 13:46:43.378876+00', 0.016166, 384227881, '{"data": null, "seed": 384227881, "batch": 4, "model": {"name": "cosine"}, "reltol": [0.001, 0.000001], "solver": {"name": "picard", "mixing": 1.0}, "gradient": {"name": "implicit", "solver": {"name": "dense"}}, "fixed_budget": false, "max_evaluations": 100}', '705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7', NULL, NULL, NULL, '{"command": "interrupted", "options": {"--id": null, "--s3": null, "--pdb": false, "--sql": null, "--help": false, "--name": null, "--debug": false, "--force": false, "--queue": false, "--capture": "no", "--comment": null, "--tiny_db": null, "--loglevel": "CRITICAL", "--mongo_db": null, "--priority": null, "--unobserved": false, "--file_storage": null, "--print-config": false, "--beat-interval": null, "--enforce_clean": false}, "named_configs": []}', NULL, 'KeyboardInterrupt', '', NULL, 'lab', 29974, '4432ffc7-656c-47cc-b6fc-7e0549c2efad', 2796823, '{"sources": [["toy.py", "204ebc879bd960132215e3ca837989ec"]], "base_dir": "/opt/deq-lab/tests/db", "mainfile": "toy.py", "repositories": []}', 3, NULL);
INSERT INTO public.run_config VALUES
	(1, 'model.name', NULL, 'mlp', 'str'),
	(1, 'model.width', 8, '8', 'num'),
	(1, 'model.inputs', 64, '64', 'num'),
	(1, 'model.classes', 10, '10', 'num'),
	(1, 'model.gain', 0.95, '0.95', 'num'),
	(1, 'model.injection', 1, '1.0', 'num'),
	(1, 'solver.name', NULL, 'broyden', 'str'),
	(1, 'solver.window', NULL, NULL, 'null'),
	(1, 'solver.reduction', NULL, 'svd', 'str'),
	(1, 'solver.kind', NULL, 'good', 'str'),
	(1, 'solver.line_search', NULL, 'false', 'bool'),
	(1, 'gradient.name', NULL, 'implicit', 'str'),
	(1, 'gradient.solver.name', NULL, 'gmres', 'str'),
	(1, 'gradient.solver.restart', NULL, NULL, 'null'),
	(1, 'gradient.reltol', NULL, NULL, 'null'),
	(1, 'gradient.max_products', 100, '100', 'num'),
	(1, 'gradient.precondition', NULL, NULL, 'null'),
	(1, 'gradient.warm_start', NULL, 'false', 'bool'),
	(1, 'gradient.on_failure', NULL, 'warn', 'str'),
	(1, 'gradient.certificate', NULL, 'true', 'bool'),
	(1, 'data.name', NULL, 'digits', 'str'),
	(1, 'data_sha256', NULL, 'b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641', 'str'),
	(1, 'reltol', NULL, '[0.01,1e-05]', 'json'),
	(1, 'abstol', 0, '0.0', 'num'),
	(1, 'norm', NULL, 'l2', 'str'),
	(1, 'max_evaluations', 50, '50', 'num'),
	(1, 'fixed_budget', NULL, 'false', 'bool'),
	(1, 'batch', 2, '2', 'num'),
	(1, 'train_steps', 0, '0', 'num'),
	(1, 'learning_rate', 0.01, '0.01', 'num'),
	(1, 'repeats', 1, '1', 'num'),
	(1, 'repeat_seconds', 0.001, '0.001', 'num'),
	(1, 'device', NULL, 'cpu', 'str'),
	(1, 'dtype', NULL, 'float32', 'str'),
	(1, 'autocast', NULL, NULL, 'null'),
	(1, 'threads', 1, '1', 'num'),
	(1, 'seed', 0, '0', 'num'),
	(2, 'model.name', NULL, 'mlp', 'str'),
	(2, 'model.width', 8, '8', 'num'),
	(2, 'model.inputs', 64, '64', 'num'),
	(2, 'model.classes', 10, '10', 'num'),
	(2, 'model.gain', 0.95, '0.95', 'num'),
	(2, 'model.injection', 1, '1.0', 'num'),
	(2, 'solver.name', NULL, 'broyden', 'str'),
	(2, 'solver.window', NULL, NULL, 'null'),
	(2, 'solver.reduction', NULL, 'svd', 'str'),
	(2, 'solver.kind', NULL, 'good', 'str'),
	(2, 'solver.line_search', NULL, 'false', 'bool'),
	(2, 'gradient.name', NULL, 'unrolled', 'str'),
	(2, 'gradient.last', NULL, NULL, 'null'),
	(2, 'data.name', NULL, 'digits', 'str'),
	(2, 'data_sha256', NULL, 'b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641', 'str'),
	(2, 'reltol', NULL, '[0.01,1e-05]', 'json'),
	(2, 'abstol', 0, '0.0', 'num'),
	(2, 'norm', NULL, 'l2', 'str'),
	(2, 'max_evaluations', 50, '50', 'num'),
	(2, 'fixed_budget', NULL, 'false', 'bool'),
	(2, 'batch', 2, '2', 'num'),
	(2, 'train_steps', 0, '0', 'num'),
	(2, 'learning_rate', 0.01, '0.01', 'num'),
	(2, 'repeats', 1, '1', 'num'),
	(2, 'repeat_seconds', 0.001, '0.001', 'num'),
	(2, 'device', NULL, 'cpu', 'str'),
	(2, 'dtype', NULL, 'float32', 'str'),
	(2, 'autocast', NULL, NULL, 'null'),
	(2, 'threads', 1, '1', 'num'),
	(2, 'seed', 0, '0', 'num'),
	(3, 'model.name', NULL, 'mlp', 'str'),
	(3, 'model.width', 8, '8', 'num'),
	(3, 'model.inputs', 64, '64', 'num'),
	(3, 'model.classes', 10, '10', 'num'),
	(3, 'model.gain', 0.95, '0.95', 'num'),
	(3, 'model.injection', 1, '1.0', 'num'),
	(3, 'solver.name', NULL, 'anderson', 'str'),
	(3, 'solver.window', 10, '10', 'num'),
	(3, 'solver.mixing', 1, '1.0', 'num'),
	(3, 'solver.kind', NULL, 'II', 'str'),
	(3, 'solver.ridge', NULL, NULL, 'null'),
	(3, 'solver.filter', 0, '0.0', 'num'),
	(3, 'solver.restart', NULL, NULL, 'null'),
	(3, 'gradient.name', NULL, 'implicit', 'str'),
	(3, 'gradient.solver.name', NULL, 'gmres', 'str'),
	(3, 'gradient.solver.restart', NULL, NULL, 'null'),
	(3, 'gradient.reltol', NULL, NULL, 'null'),
	(3, 'gradient.max_products', 100, '100', 'num'),
	(3, 'gradient.precondition', NULL, NULL, 'null'),
	(3, 'gradient.warm_start', NULL, 'false', 'bool'),
	(3, 'gradient.on_failure', NULL, 'warn', 'str'),
	(3, 'gradient.certificate', NULL, 'true', 'bool'),
	(3, 'data.name', NULL, 'digits', 'str'),
	(3, 'data_sha256', NULL, 'b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641', 'str'),
	(3, 'reltol', NULL, '[0.01,1e-05]', 'json'),
	(3, 'abstol', 0, '0.0', 'num'),
	(3, 'norm', NULL, 'l2', 'str'),
	(3, 'max_evaluations', 50, '50', 'num'),
	(3, 'fixed_budget', NULL, 'false', 'bool'),
	(3, 'batch', 2, '2', 'num'),
	(3, 'train_steps', 0, '0', 'num'),
	(3, 'learning_rate', 0.01, '0.01', 'num'),
	(3, 'repeats', 1, '1', 'num'),
	(3, 'repeat_seconds', 0.001, '0.001', 'num'),
	(3, 'device', NULL, 'cpu', 'str'),
	(3, 'dtype', NULL, 'float32', 'str'),
	(3, 'autocast', NULL, NULL, 'null'),
	(3, 'threads', 1, '1', 'num'),
	(3, 'seed', 0, '0', 'num'),
	(4, 'model.name', NULL, 'mlp', 'str'),
	(4, 'model.width', 8, '8', 'num'),
	(4, 'model.inputs', 64, '64', 'num'),
	(4, 'model.classes', 10, '10', 'num'),
	(4, 'model.gain', 0.95, '0.95', 'num'),
	(4, 'model.injection', 1, '1.0', 'num'),
	(4, 'solver.name', NULL, 'anderson', 'str'),
	(4, 'solver.window', 10, '10', 'num'),
	(4, 'solver.mixing', 1, '1.0', 'num'),
	(4, 'solver.kind', NULL, 'II', 'str'),
	(4, 'solver.ridge', NULL, NULL, 'null'),
	(4, 'solver.filter', 0, '0.0', 'num'),
	(4, 'solver.restart', NULL, NULL, 'null'),
	(4, 'gradient.name', NULL, 'unrolled', 'str'),
	(4, 'gradient.last', NULL, NULL, 'null'),
	(4, 'data.name', NULL, 'digits', 'str'),
	(14, 'data', NULL, NULL, 'null'),
	(4, 'data_sha256', NULL, 'b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641', 'str'),
	(4, 'reltol', NULL, '[0.01,1e-05]', 'json'),
	(4, 'abstol', 0, '0.0', 'num'),
	(4, 'norm', NULL, 'l2', 'str'),
	(4, 'max_evaluations', 50, '50', 'num'),
	(4, 'fixed_budget', NULL, 'false', 'bool'),
	(4, 'batch', 2, '2', 'num'),
	(4, 'train_steps', 0, '0', 'num'),
	(4, 'learning_rate', 0.01, '0.01', 'num'),
	(4, 'repeats', 1, '1', 'num'),
	(4, 'repeat_seconds', 0.001, '0.001', 'num'),
	(4, 'device', NULL, 'cpu', 'str'),
	(4, 'dtype', NULL, 'float32', 'str'),
	(4, 'autocast', NULL, NULL, 'null'),
	(4, 'threads', 1, '1', 'num'),
	(4, 'seed', 0, '0', 'num'),
	(5, 'model.name', NULL, 'cosine', 'str'),
	(5, 'solver.name', NULL, 'picard', 'str'),
	(5, 'solver.mixing', 1, '1.0', 'num'),
	(5, 'gradient.name', NULL, 'implicit', 'str'),
	(5, 'gradient.solver.name', NULL, 'dense', 'str'),
	(5, 'data', NULL, NULL, 'null'),
	(5, 'reltol', NULL, '[0.001,1e-06]', 'json'),
	(5, 'max_evaluations', 100, '100', 'num'),
	(5, 'fixed_budget', NULL, 'false', 'bool'),
	(5, 'batch', 4, '4', 'num'),
	(5, 'seed', 824795491, '824795491', 'num'),
	(6, 'model.name', NULL, 'cosine', 'str'),
	(6, 'solver.name', NULL, 'picard', 'str'),
	(6, 'solver.mixing', 1, '1.0', 'num'),
	(6, 'gradient.name', NULL, 'implicit', 'str'),
	(6, 'gradient.solver.name', NULL, 'dense', 'str'),
	(6, 'data', NULL, NULL, 'null'),
	(6, 'reltol', NULL, '[0.001,1e-06]', 'json'),
	(6, 'max_evaluations', 100, '100', 'num'),
	(6, 'fixed_budget', NULL, 'false', 'bool'),
	(6, 'batch', 4, '4', 'num'),
	(6, 'a.b', NULL, '[1,{"$float":"inf"}]', 'json'),
	(6, 'a.long', NULL, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', 'str'),
	(6, 'a.text', NULL, '1e-3', 'str'),
	(6, 'seed', 7, '7', 'num'),
	(7, 'model.name', NULL, 'cosine', 'str'),
	(7, 'solver.name', NULL, 'picard', 'str'),
	(7, 'solver.mixing', 1, '1.0', 'num'),
	(7, 'gradient.name', NULL, 'implicit', 'str'),
	(7, 'gradient.solver.name', NULL, 'dense', 'str'),
	(7, 'data', NULL, NULL, 'null'),
	(7, 'reltol', NULL, '[0.001,1e-06]', 'json'),
	(7, 'max_evaluations', 100, '100', 'num'),
	(7, 'fixed_budget', NULL, 'false', 'bool'),
	(7, 'batch', 4, '4', 'num'),
	(7, 'seed', 347712783, '347712783', 'num'),
	(8, 'model.name', NULL, 'cosine', 'str'),
	(8, 'solver.name', NULL, 'picard', 'str'),
	(8, 'solver.mixing', 1, '1.0', 'num'),
	(8, 'gradient.name', NULL, 'implicit', 'str'),
	(8, 'gradient.solver.name', NULL, 'dense', 'str'),
	(8, 'data', NULL, NULL, 'null'),
	(8, 'reltol', NULL, '[0.001,1e-06]', 'json'),
	(8, 'max_evaluations', 100, '100', 'num'),
	(8, 'fixed_budget', NULL, 'false', 'bool'),
	(8, 'batch', 4, '4', 'num'),
	(8, 'seed', 0, '0', 'num'),
	(9, 'model.name', NULL, 'cosine', 'str'),
	(9, 'solver.name', NULL, 'picard', 'str'),
	(9, 'solver.mixing', 1, '1.0', 'num'),
	(9, 'gradient.name', NULL, 'implicit', 'str'),
	(9, 'gradient.solver.name', NULL, 'dense', 'str'),
	(9, 'data', NULL, NULL, 'null'),
	(9, 'reltol', NULL, '[0.001,1e-06]', 'json'),
	(9, 'max_evaluations', 100, '100', 'num'),
	(9, 'fixed_budget', NULL, 'false', 'bool'),
	(9, 'batch', 4, '4', 'num'),
	(9, 'seed', 1, '1', 'num'),
	(10, 'model.name', NULL, 'cosine', 'str'),
	(10, 'solver.name', NULL, 'newton', 'str'),
	(10, 'solver.mixing', 1, '1.0', 'num');
INSERT INTO public.run_config VALUES
	(10, 'gradient.name', NULL, 'implicit', 'str'),
	(10, 'gradient.solver.name', NULL, 'dense', 'str'),
	(10, 'data', NULL, NULL, 'null'),
	(10, 'reltol', NULL, '[0.001,1e-06]', 'json'),
	(10, 'max_evaluations', 100, '100', 'num'),
	(10, 'fixed_budget', NULL, 'false', 'bool'),
	(10, 'batch', 4, '4', 'num'),
	(10, 'seed', 0, '0', 'num'),
	(11, 'model.name', NULL, 'cosine', 'str'),
	(11, 'solver.name', NULL, 'picard', 'str'),
	(11, 'solver.mixing', 1, '1.0', 'num'),
	(11, 'gradient.name', NULL, 'implicit', 'str'),
	(11, 'gradient.solver.name', NULL, 'dense', 'str'),
	(11, 'data', NULL, NULL, 'null'),
	(11, 'reltol', NULL, '[0.001,1e-06]', 'json'),
	(11, 'max_evaluations', 100, '100', 'num'),
	(11, 'fixed_budget', NULL, 'false', 'bool'),
	(11, 'batch', 4, '4', 'num'),
	(11, 'seed', 906691060, '906691060', 'num'),
	(12, 'model.name', NULL, 'cosine', 'str'),
	(12, 'solver.name', NULL, 'picard', 'str'),
	(12, 'solver.mixing', 1, '1.0', 'num'),
	(12, 'gradient.name', NULL, 'implicit', 'str'),
	(12, 'gradient.solver.name', NULL, 'dense', 'str'),
	(12, 'data', NULL, NULL, 'null'),
	(12, 'reltol', NULL, '[0.001,1e-06]', 'json'),
	(12, 'max_evaluations', 100, '100', 'num'),
	(12, 'fixed_budget', NULL, 'false', 'bool'),
	(12, 'batch', 4, '4', 'num'),
	(12, 'seed', 745254916, '745254916', 'num'),
	(13, 'model.name', NULL, 'cosine', 'str'),
	(13, 'solver.name', NULL, 'picard', 'str'),
	(13, 'solver.mixing', 1, '1.0', 'num'),
	(13, 'gradient.name', NULL, 'implicit', 'str'),
	(13, 'gradient.solver.name', NULL, 'dense', 'str'),
	(13, 'data', NULL, NULL, 'null'),
	(13, 'reltol', NULL, '[0.001,1e-06]', 'json'),
	(13, 'max_evaluations', 100, '100', 'num'),
	(13, 'fixed_budget', NULL, 'false', 'bool'),
	(13, 'batch', 4, '4', 'num'),
	(13, 'seed', 384227881, '384227881', 'num'),
	(14, 'model.name', NULL, 'cosine', 'str'),
	(14, 'solver.name', NULL, 'picard', 'str'),
	(14, 'solver.mixing', 1, '1.0', 'num'),
	(14, 'gradient.name', NULL, 'implicit', 'str'),
	(14, 'gradient.solver.name', NULL, 'dense', 'str'),
	(14, 'reltol', NULL, '[0.001,1e-06]', 'json'),
	(14, 'max_evaluations', 100, '100', 'num'),
	(14, 'fixed_budget', NULL, 'false', 'bool'),
	(14, 'batch', 4, '4', 'num'),
	(14, 'seed', 279612652, '279612652', 'num');
INSERT INTO public.run_output VALUES
	(5, 0, 'printed: ☃ '' " \ %s :x
	and more
');
INSERT INTO public.schema_version VALUES
	(1, '2026-11-24 13:46:35.241555+00');
INSERT INTO public.series VALUES
	(1, 5, 'odd'),
	(2, 5, 'loss'),
	(3, 5, 'never finite'),
	(4, 5, 'a text'),
	(5, 7, 'loss'),
	(6, 14, 'loss');
INSERT INTO public.solve VALUES
	(1, 1, 0, 0, 'forward', '', 'mlp', 'broyden', '{"kind": "good", "window": null, "reduction": "svd", "line_search": false}', 6, 7, 14, 0, 0, 7, 2696, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 1.242530345916748, 0.008325347676873207, 0.008325347676873207, 0.004896084211390467, 0.002982449997944059, 0.002982449997944059, 0.002982449997944059, 1, 0, 0.01, 'l2', 50, 0, 'float32', 'cpu', 2, 8, NULL),
	(2, 1, 1, 0, 'adjoint', '', '', 'gmres', '{"restart": null}', 5, 1, 2, 0, 6, 8, 640, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 0.1836593896150589, 0.0028316655661910772, 0.0028316655661910772, 0.009712243803156597, 0.004449799998837989, 0.004449799998837989, 0.004449799998837989, 1, 0, 0.01, 'l2', 100, 0, 'float32', 'cpu', 2, 8, NULL),
	(3, 1, 2, 1, 'forward', '', 'mlp', 'broyden', '{"kind": "good", "window": null, "reduction": "svd", "line_search": false}', 10, 11, 22, 0, 0, 11, 9480, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 1.242530345916748, 1.2815892660000827e-05, 1.2815892660000827e-05, 7.861278614699711e-06, 0.004537460001301952, 0.004537460001301952, 0.004537460001301952, 1, 0, 1e-05, 'l2', 50, 0, 'float32', 'cpu', 2, 8, NULL),
	(4, 1, 3, 1, 'adjoint', '', '', 'gmres', '{"restart": null}', 8, 1, 2, 0, 9, 11, 640, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 0.18334269523620605, 1.3568424606091867e-08, 1.3568424606091867e-08, 4.6519411387839634e-08, 0.004795562002982479, 0.004795562002982479, 0.004795562002982479, 1, 0, 1e-05, 'l2', 100, 0, 'float32', 'cpu', 2, 8, NULL),
	(5, 2, 0, 0, 'forward', '', 'mlp', 'broyden', '{"kind": "good", "window": null, "reduction": "svd", "line_search": false}', 6, 7, 14, 0, 0, 7, 1640, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 1.242530345916748, 0.008325347676873207, 0.008325347676873207, 0.004896084211390467, 0.0033502460028103087, 0.0033502460028103087, 0.0033502460028103087, 1, 0, 0.01, 'l2', 50, 0, 'float32', 'cpu', 2, 8, NULL),
	(6, 2, 1, 1, 'forward', '', 'mlp', 'broyden', '{"kind": "good", "window": null, "reduction": "svd", "line_search": false}', 10, 11, 22, 0, 0, 11, 4008, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 1.242530345916748, 1.2815892660000827e-05, 1.2815892660000827e-05, 7.861278614699711e-06, 0.005809099002362927, 0.005809099002362927, 0.005809099002362927, 1, 0, 1e-05, 'l2', 50, 0, 'float32', 'cpu', 2, 8, NULL),
	(7, 3, 0, 0, 'forward', '', 'mlp', 'anderson', '{"kind": "II", "ridge": null, "filter": 0.0, "mixing": 1.0, "window": 10, "restart": null}', 6, 7, 14, 0, 0, 7, 2424, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 1.242530345916748, 0.008775832131505013, 0.008775832131505013, 0.005160595206116023, 0.0035765619977610186, 0.0035765619977610186, 0.0035765619977610186, 1, 0, 0.01, 'l2', 50, 0, 'float32', 'cpu', 2, 8, NULL),
	(8, 3, 1, 0, 'adjoint', '', '', 'gmres', '{"restart": null}', 5, 1, 2, 0, 6, 8, 640, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 0.18373648822307587, 0.0028325445018708706, 0.0028325445018708706, 0.009717810317965375, 0.004331662999902619, 0.004331662999902619, 0.004331662999902619, 1, 0, 0.01, 'l2', 100, 0, 'float32', 'cpu', 2, 8, NULL),
	(9, 3, 2, 1, 'forward', '', 'mlp', 'anderson', '{"kind": "II", "ridge": null, "filter": 0.0, "mixing": 1.0, "window": 10, "restart": null}', 10, 11, 22, 0, 0, 11, 3320, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 1.242530345916748, 1.1042725418519694e-05, 1.1042725418519694e-05, 7.2129577229210805e-06, 0.004188430997601245, 0.004188430997601245, 0.004188430997601245, 1, 0, 1e-05, 'l2', 50, 0, 'float32', 'cpu', 2, 8, NULL),
	(10, 3, 3, 1, 'adjoint', '', '', 'gmres', '{"restart": null}', 8, 1, 2, 0, 9, 11, 640, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 0.1833423674106598, 3.1080762852297994e-08, 3.1080762852297994e-08, 1.0656049590713867e-07, 0.004842212998482864, 0.004842212998482864, 0.004842212998482864, 1, 0, 1e-05, 'l2', 100, 0, 'float32', 'cpu', 2, 8, NULL),
	(11, 4, 0, 0, 'forward', '', 'mlp', 'anderson', '{"kind": "II", "ridge": null, "filter": 0.0, "mixing": 1.0, "window": 10, "restart": null}', 6, 7, 14, 0, 0, 7, 1368, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 1.242530345916748, 0.0087758032605052, 0.0087758032605052, 0.005160578228632749, 0.0032607739995000884, 0.0032607739995000884, 0.0032607739995000884, 1, 0, 0.01, 'l2', 50, 0, 'float32', 'cpu', 2, 8, NULL),
	(12, 4, 1, 1, 'forward', '', 'mlp', 'anderson', '{"kind": "II", "ridge": null, "filter": 0.0, "mixing": 1.0, "window": 10, "restart": null}', 10, 11, 22, 0, 0, 11, 2872, 'SUCCESS', '{"SUCCESS": 2}', 1, 'SUCCESS: the residual at the returned point meets the tolerance', 1.242530345916748, 1.1116076166217681e-05, 1.1116076166217681e-05, 7.260869431492854e-06, 0.006673561998468358, 0.006673561998468358, 0.006673561998468358, 1, 0, 1e-05, 'l2', 50, 0, 'float32', 'cpu', 2, 8, NULL),
	(13, 6, 0, NULL, 'forward', 'layer.0', NULL, 'broyden', '{"window": 5}', NULL, 4, NULL, NULL, NULL, NULL, NULL, 'NONFINITE', '{"SUCCESS": 1, "NONFINITE": 1}', 0.5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1e-06, NULL, NULL, 1, NULL, NULL, NULL, NULL, '{"attempts": ["a", "b"], "nonfinite": {"residual_last": "nan"}}'),
	(14, 6, 1, NULL, 'adjoint', '', NULL, 'gmres', NULL, NULL, NULL, NULL, NULL, 7, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	(15, 6, 2, NULL, 'tangent', '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	(16, 8, 0, 0, 'forward', '', 'cosine', 'picard', '{"name": "picard", "mixing": 1.0}', 8, 9, NULL, NULL, NULL, NULL, NULL, 'SUCCESS', '{"SUCCESS": 4}', 1, 'converged', 1.1369616873214543, 0.0005026757932568016, 0.0005026757932568016, 0.0004421220159502873, 4.593799894792028e-05, NULL, NULL, NULL, NULL, 0.001, NULL, 100, 0, 'float64', NULL, 4, 1, NULL),
	(17, 8, 1, 1, 'forward', '', 'cosine', 'picard', '{"name": "picard", "mixing": 1.0}', 15, 16, NULL, NULL, NULL, NULL, NULL, 'SUCCESS', '{"SUCCESS": 4}', 1, 'converged', 1.1369616873214543, 8.536933429059701e-07, 8.536933429059701e-07, 7.508549781630456e-07, 0.00010656800077413209, NULL, NULL, NULL, NULL, 1e-06, NULL, 100, 0, 'float64', NULL, 4, 1, NULL),
	(18, 9, 0, 0, 'forward', '', 'cosine', 'picard', '{"name": "picard", "mixing": 1.0}', 9, 10, NULL, NULL, NULL, NULL, NULL, 'SUCCESS', '{"SUCCESS": 4}', 1, 'converged', 1.4504636963259352, 0.0008432041232031562, 0.0008432041232031562, 0.0005813341797792083, 4.549699951894581e-05, NULL, NULL, NULL, NULL, 0.001, NULL, 100, 0, 'float64', NULL, 4, 1, NULL),
	(19, 9, 1, 1, 'forward', '', 'cosine', 'picard', '{"name": "picard", "mixing": 1.0}', 18, 19, NULL, NULL, NULL, NULL, NULL, 'SUCCESS', '{"SUCCESS": 4}', 1, 'converged', 1.4504636963259352, 7.337329546164284e-07, 7.337329546164284e-07, 5.058609577578496e-07, 0.0001256460018339567, NULL, NULL, NULL, NULL, 1e-06, NULL, 100, 0, 'float64', NULL, 4, 1, NULL),
	(20, 10, 0, 0, 'forward', '', 'cosine', 'newton', '{"name": "newton", "mixing": 1.0}', 3, 4, NULL, NULL, NULL, NULL, NULL, 'SUCCESS', '{"SUCCESS": 4}', 1, 'converged', 1.1369616873214543, 1.7062668347112009e-06, 1.7062668347112009e-06, 1.5007250057220145e-06, 2.6269000954926014e-05, NULL, NULL, NULL, NULL, 0.001, NULL, 100, 0, 'float64', NULL, 4, 1, NULL),
	(21, 10, 1, 1, 'forward', '', 'cosine', 'newton', '{"name": "newton", "mixing": 1.0}', 4, 5, NULL, NULL, NULL, NULL, NULL, 'SUCCESS', '{"SUCCESS": 4}', 1, 'converged', 1.1369616873214543, 2.2004620348070603e-13, 2.2004620348070603e-13, 1.9353880252474344e-13, 7.350899977609515e-05, NULL, NULL, NULL, NULL, 1e-06, NULL, 100, 0, 'float64', NULL, 4, 1, NULL);
INSERT INTO public.solve_trace VALUES
	(1, 'evaluations', 7, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b48c03005fe70310'),
	(1, 'seconds', 7, 'float64 little-endian, zlib', '\x780163606090f8f244db9e8181e1c3b71c27109dc5f2d60f44e7ecf10e01d1f78c452341f4b503327140ba21c0a83ad11e00b3500f46'),
	(1, 'residual', 7, 'float64 little-endian, zlib', '\x780163606068487ff8d99e8181e1c0b58297209a61b9da0310fde0c6bccb20ba21f7e609306d766436887678c8d3680f0016cf128b'),
	(1, 'active', 7, 'float64 little-endian, zlib', '\x7801636000030708c5402ccd00002bb80181'),
	(2, 'evaluations', 5, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282de20000367f025c'),
	(2, 'seconds', 5, 'float64 little-endian, zlib', '\x78014b4b4b33baa4666b9f06a67dedcf9e39b354f66e28941f6bcfc0d010ef6c91640f004b7b0f4c'),
	(2, 'residual', 5, 'float64 little-endian, zlib', '\x780163606058a0d674dc9e8181e18049e82e10bd60fe8ef9205ae1d4926e100d0600debf09be'),
	(2, 'active', 5, 'float64 little-endian, zlib', '\x7801636000030708c5808b66000015280101'),
	(3, 'evaluations', 11, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b40c945680d24a505a054aab390000d63f049c'),
	(3, 'seconds', 11, 'float64 little-endian, zlib', '\x7801636060b8f3aec1d89e8181a1c1d1c013446b5cbb1204a2e7894c0f07d1b7b3ec628174c38b92770920da45452f1924ee119d930aa23b0396a783c4fd981cb240f4fded0539f6001bf6187b'),
	(3, 'residual', 11, 'float64 little-endian, zlib', '\x780163606068487ff8d99e8181e1c0b58297209a61b9da0310fde0c6bccb20ba21f7e609306d766436887678c8d308a213c2df8581f9be6bac41f4038703d260baeac12b3b00e9ea1c14'),
	(3, 'active', 11, 'float64 little-endian, zlib', '\x7801636000030708c5402d9a010070d80281'),
	(4, 'evaluations', 8, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b40c945670000078e70370'),
	(4, 'seconds', 8, 'float64 little-endian, zlib', '\x7801636068d8c81e6c6ecf00a6dd81b4c251d7ba40283f1c483f987b523d162a9e08a403762fcb4881caa7db03003ceb12aa'),
	(4, 'residual', 8, 'float64 little-endian, zlib', '\x78016360606038567edc1e48350846ef02d10952fbe783e803518ddd60712dc97410ed60516507a2158a5f8b8068300000e9a00d4e'),
	(4, 'active', 8, 'float64 little-endian, zlib', '\x7801636000030708c5402acd00003a0001c1'),
	(5, 'evaluations', 7, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b48c03005fe70310'),
	(5, 'seconds', 7, 'float64 little-endian, zlib', '\x780163606090787a42d39e818181e7708613887ea8f82a0044abfd618c00d1ef3a9fc601e906a9dedd49207a158f499a3d009fd40fa6'),
	(5, 'residual', 7, 'float64 little-endian, zlib', '\x780163606068487ff8d99e8181e1c0b58297209a61b9da0310fde0c6bccb20ba21f7e609306d766436887678c8d3680f0016cf128b'),
	(5, 'active', 7, 'float64 little-endian, zlib', '\x7801636000030708c5402ccd00002bb80181'),
	(6, 'evaluations', 11, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b40c945680d24a505a054aab390000d63f049c'),
	(6, 'seconds', 11, 'float64 little-endian, zlib', '\x7801636060783055d6d49e8181412f55c107443714878581e81ae1a058101d932f9f04a26b4fe7a402e9862502eb3340b4e91bd91c10fddfed58019076883c36ab084833701b6696d80300917a16b2'),
	(6, 'residual', 11, 'float64 little-endian, zlib', '\x780163606068487ff8d99e8181e1c0b58297209a61b9da0310fde0c6bccb20ba21f7e609306d766436887678c8d308a213c2df8581f9be6bac41f4038703d260baeac12b3b00e9ea1c14'),
	(6, 'active', 11, 'float64 little-endian, zlib', '\x7801636000030708c5402d9a010070d80281'),
	(7, 'evaluations', 7, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b48c03005fe70310'),
	(7, 'seconds', 7, 'float64 little-endian, zlib', '\x780163606090b0f8636acfc0c060b7bac419446f33300c01d1425f774582e83736abe340f4c99f724940bae1d9d3f8147b007eb80fe1'),
	(7, 'residual', 7, 'float64 little-endian, zlib', '\x780163606068487ff8d99e8181e1c0b58297203aa189e501985e7df81c887660653a02e6cfd45b00e60bfc6cb40700e9691062'),
	(7, 'active', 7, 'float64 little-endian, zlib', '\x7801636000030708c5402ccd00002bb80181'),
	(8, 'evaluations', 5, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282de20000367f025c'),
	(8, 'seconds', 5, 'float64 little-endian, zlib', '\x78019b3573e6dc333baced6781696f7b6363e3b299a742a0fc687b06868647f5c189f600a5c6133f'),
	(8, 'residual', 5, 'float64 little-endian, zlib', '\x78016360604858db72dc9e81814121336c17885e60b26f3e884e78bba21b44830100d9ae099f'),
	(8, 'active', 5, 'float64 little-endian, zlib', '\x7801636000030708c5808b66000015280101'),
	(9, 'evaluations', 11, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b40c945680d24a505a054aab390000d63f049c'),
	(9, 'seconds', 11, 'float64 little-endian, zlib', '\x780163606078a0616364cfc0c0e076c3c4094457fdd81800a2fff52d0c03d1a99774a341f4c7e97ef140bae1f59a398920da7b496f3248dccaa42115c4bf53f0291dc4975629cfb207004dbd19b5'),
	(9, 'residual', 11, 'float64 little-endian, zlib', '\x780163606068487ff8d99e8181e1c0b58297203aa189e501985e7df81c887660653a02e6cfd45b00e60bfc6c04d3866d31207a01cf0e53107d604ab50098dfa2f1dc0e006438185b'),
	(9, 'active', 11, 'float64 little-endian, zlib', '\x7801636000030708c5402d9a010070d80281'),
	(10, 'evaluations', 8, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b40c945670000078e70370'),
	(10, 'seconds', 8, 'float64 little-endian, zlib', '\x780163606878a61a6f66cf00a6dd80f4839c98e301507e1890564878ff2d1a2a9e00a437683a4e4e86caa7d903009ff01537'),
	(10, 'residual', 8, 'float64 little-endian, zlib', '\x780163606070385c7edc9e8181618168f42e109d20bb7f3e8876086aec06d1076425d34134835a951d583cf7b508980f120300ed040d25'),
	(10, 'active', 8, 'float64 little-endian, zlib', '\x7801636000030708c5402acd00003a0001c1'),
	(11, 'evaluations', 7, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b48c03005fe70310'),
	(11, 'seconds', 7, 'float64 little-endian, zlib', '\x7801636060f0e81034b6676060b820f2c30944cf7bdf1d08a2efce3b1e01a21fcb95c503e986ff1e6f9340b483f8ef547b00b03c1112'),
	(11, 'residual', 7, 'float64 little-endian, zlib', '\x780163606068487ff8d99e8181e1c0b58297203aa189e501985e7df81c589c95e908887eb0406f01589ce767a33d00fb4d1185'),
	(11, 'active', 7, 'float64 little-endian, zlib', '\x7801636000030708c5402ccd00002bb80181'),
	(12, 'evaluations', 11, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b40c945680d24a505a054aab390000d63f049c'),
	(12, 'seconds', 11, 'float64 little-endian, zlib', '\x780163606010907c626dcfc0c0b0a9688227883eadfc330c449b87df8903d20dfd77ef278168454fe13490b8c6aa7799207ad1bfda5c20eda0cb655e00a26fbee72a03d2078456df2cb70700260119b6'),
	(12, 'residual', 11, 'float64 little-endian, zlib', '\x780163606068487ff8d99e8181e1c0b58297203aa189e501985e7df81c589c95e908887eb0406f01589ce7672398966e8b01d10decdb4cc1fcef150220fac153ffe776009b661a29'),
	(12, 'active', 11, 'float64 little-endian, zlib', '\x7801636000030708c5402d9a010070d80281'),
	(13, 'evaluations', 4, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901070025d70208'),
	(13, 'residual', 4, 'float64 little-endian, zlib', '\x7801636000810ff6b36682c04e7b3097e1433d84fe510f008d4f08a5'),
	(13, 'seconds', 4, 'float64 little-endian, zlib', '\x78016360808059334160a73d843e696f0c0697ed01a1840b73'),
	(13, 'active', 4, 'float64 little-endian, zlib', '\x7801636000030708c500a53fd843f90c00163701b0'),
	(16, 'evaluations', 9, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b40c945680d24a0e0094eb03d2'),
	(16, 'seconds', 9, 'float64 little-endian, zlib', '\x78016360606058b4f3a21d9062d033fc00a21d843e7f01f32dcb7f82e886a7bcffc0fcc3c18cf640fe82d009cc203a61fa7956307fa328873d008c3a11d8'),
	(16, 'residual', 9, 'float64 little-endian, zlib', '\x7801014800b7ff289cfdbcfe30f23fdc359244778cd23f100393158df2be3f6000bc664f5fa83f40e6d133a2bd933f00f3c85772a67f3f00f00f913d7b693f004a571ee57a543f00fcd70bc078403fea20209f'),
	(16, 'active', 9, 'float64 little-endian, zlib', '\x78016360000101073045010d005da802d1'),
	(17, 'evaluations', 16, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b40c945680d24a505a054aab41690d28ad05a575a0b41e9436700000b2c606b8'),
	(17, 'seconds', 16, 'float64 little-endian, zlib', '\x780163606060d810ca600fa41c6265d8407482bd072798f67dc30da215ba2af940f484ee0c01107de1ef1441101dc07e400844179c7a290ca21b5e888982e805169662207a437a8138883e10d32f0196e75e2b09a20dfe9e9402d1012bde4bdb030075f41c5c'),
	(17, 'residual', 16, 'float64 little-endian, zlib', '\x7801d398f377cf3f834ff6774c27b994f75cb217609e2cdafb699f7d02c39e34fff815f60ecf2e1a2fda3bd99ee1f389f0a265f5f60c1ff827da5667da337885cb3dad0ab167f8739dfb4085833d4382fb62e65a2d7b0686c5716f7d44ed191cfe861c546004f2f9ee1cef7e6dc7c0e0d658a1760d48cb08ef3f7f10482f68d65ebac60e000a1b3389'),
	(17, 'active', 16, 'float64 little-endian, zlib', '\x78016360000101073035003400328f0501'),
	(18, 'evaluations', 10, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b40c945680d24a505ac50100b4030436'),
	(18, 'seconds', 10, 'float64 little-endian, zlib', '\x780163606060883b72d10e48357c9efc0c44332c17fe00a21d6ecfff02e69fd6fe09a6176efa0ba21fd4f230da03e984d5f6cc20baa1ba8715443334de62b707009900158c'),
	(18, 'residual', 10, 'float64 little-endian, zlib', '\x7801015000afff2a15bc6b1935f73f040d43c29c28dc3f286ac9728054ca3f0025d708c594b73fe02d2365b4b4a53f40221cd4cac4933f80a11e8d3819823f005c5c440388703f00dc189a5c3b5e3f007806114fa14b3f0a741e4f'),
	(18, 'active', 10, 'float64 little-endian, zlib', '\x78016360000101073045051a0074900321'),
	(19, 'evaluations', 19, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282d02a525a0b40c945680d24a505a054aab41690d28ad05a575a0b41e943680d28650da084a1b3b000060a1080e'),
	(19, 'seconds', 19, 'float64 little-endian, zlib', '\x780163606078b0f539b33d0310c4dee504d10d868cbc20fa40421b3f88be90f44700443bdcd71302d113bc1285c17cae4e1110bde1c2165110cda07d570ccc37f9270ea22f68ca4a82e809d2565220ba21314c1a4427ec2f9301d101abfa6541f485451be4c0f26b2eca83e80fbfca15ec01241523ca'),
	(19, 'residual', 19, 'float64 little-endian, zlib', '\x7801d312dd932d69fadd9e85d7f9d01c8d3bf61a59278b1a424ed933a85ee7383a65bbfd035de5d42d5b96da3b28c95c397564b27dc342b95e0bc9267b86981817e68e027b863b12b362ace3ec192ad804fd177adb337c90bfc4ec6469cfc010f4c1494cdd9ea141724e9b942890debfcfd78b1928deb49579d1473b068675369a720f80f48237eee56781344393fafb5d20fe95edf356d80100c74036da'),
	(19, 'active', 19, 'float64 little-endian, zlib', '\x78016360000101073035886800b34705f1'),
	(20, 'evaluations', 4, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901070025d70208'),
	(20, 'seconds', 4, 'float64 little-endian, zlib', '\x780163606060e05f72cd0e4831447f7c03a21d4453be82f91dddbfed0076cc0876'),
	(20, 'residual', 4, 'float64 little-endian, zlib', '\x7801d398f377cf3f834ff6774c27b994f75cb2679821abb3b1a1d89e81618265cc823d7600077c0e5b'),
	(20, 'active', 4, 'float64 little-endian, zlib', '\x7801636000010107308585060010a00141'),
	(21, 'evaluations', 5, 'float64 little-endian, zlib', '\x7801636000810ff6608a81c1014273406901282de20000367f025c'),
	(21, 'seconds', 5, 'float64 little-endian, zlib', '\x7801636060389012cc66cfc0c0d0706a290f8856f8a92a00a213ec760b8268066957617b00ae0e07df'),
	(21, 'residual', 5, 'float64 little-endian, zlib', '\x7801d398f377cf3f834ff6774c27b994f75cb2679821abb3b1a1d89e81618265cc823d760c20f0c3cf16007e150fde'),
	(21, 'active', 5, 'float64 little-endian, zlib', '\x780163600001010730858706001b080191');
SELECT pg_catalog.setval('public.environment_id_seq', 3, true);
SELECT pg_catalog.setval('public.grad_check_id_seq', 16, true);
SELECT pg_catalog.setval('public.run_id_seq', 14, true);
SELECT pg_catalog.setval('public.series_id_seq', 6, true);
SELECT pg_catalog.setval('public.solve_id_seq', 21, true);
ALTER TABLE ONLY public.environment
    ADD CONSTRAINT pk_environment PRIMARY KEY (id);
ALTER TABLE ONLY public.grad_check
    ADD CONSTRAINT pk_grad_check PRIMARY KEY (id);
ALTER TABLE ONLY public.point
    ADD CONSTRAINT pk_point PRIMARY KEY (series_id, ord);
ALTER TABLE ONLY public.run
    ADD CONSTRAINT pk_run PRIMARY KEY (id);
ALTER TABLE ONLY public.run_config
    ADD CONSTRAINT pk_run_config PRIMARY KEY (run_id, key);
ALTER TABLE ONLY public.run_output
    ADD CONSTRAINT pk_run_output PRIMARY KEY (run_id, seq);
ALTER TABLE ONLY public.schema_version
    ADD CONSTRAINT pk_schema_version PRIMARY KEY (version);
ALTER TABLE ONLY public.series
    ADD CONSTRAINT pk_series PRIMARY KEY (id);
ALTER TABLE ONLY public.solve
    ADD CONSTRAINT pk_solve PRIMARY KEY (id);
ALTER TABLE ONLY public.solve_trace
    ADD CONSTRAINT pk_solve_trace PRIMARY KEY (solve_id, "column");
ALTER TABLE ONLY public.environment
    ADD CONSTRAINT uq_environment_fingerprint UNIQUE (fingerprint);
ALTER TABLE ONLY public.grad_check
    ADD CONSTRAINT uq_grad_check_run_id_ord UNIQUE (run_id, ord);
ALTER TABLE ONLY public.run
    ADD CONSTRAINT uq_run_uuid UNIQUE (uuid);
ALTER TABLE ONLY public.series
    ADD CONSTRAINT uq_series_run_id_name UNIQUE (run_id, name);
ALTER TABLE ONLY public.solve
    ADD CONSTRAINT uq_solve_run_id_ord UNIQUE (run_id, ord);
CREATE INDEX ix_grad_check_adjoint_id ON public.grad_check USING btree (adjoint_id);
CREATE INDEX ix_grad_check_method ON public.grad_check USING btree (method);
CREATE INDEX ix_grad_check_run_id_outer_step ON public.grad_check USING btree (run_id, outer_step);
CREATE INDEX ix_grad_check_solve_id ON public.grad_check USING btree (solve_id);
CREATE INDEX ix_run_config_hash ON public.run USING btree (config_hash);
CREATE INDEX ix_run_config_key_num ON public.run_config USING btree (key, num);
CREATE INDEX ix_run_config_key_start ON public.run_config USING btree (key, substr(txt, 1, 100));
CREATE INDEX ix_run_environment_id ON public.run USING btree (environment_id);
CREATE INDEX ix_run_experiment_started_at ON public.run USING btree (experiment, started_at);
CREATE INDEX ix_run_parent_id ON public.run USING btree (parent_id);
CREATE INDEX ix_run_status ON public.run USING btree (status);
CREATE INDEX ix_run_study_experiment ON public.run USING btree (study, experiment);
CREATE INDEX ix_run_trial ON public.run USING btree (trial);
CREATE INDEX ix_solve_run_id_phase_outer_step ON public.solve USING btree (run_id, phase, outer_step);
ALTER TABLE ONLY public.grad_check
    ADD CONSTRAINT fk_grad_check_adjoint_id_solve FOREIGN KEY (adjoint_id) REFERENCES public.solve(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.grad_check
    ADD CONSTRAINT fk_grad_check_run_id_run FOREIGN KEY (run_id) REFERENCES public.run(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.grad_check
    ADD CONSTRAINT fk_grad_check_solve_id_solve FOREIGN KEY (solve_id) REFERENCES public.solve(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.point
    ADD CONSTRAINT fk_point_series_id_series FOREIGN KEY (series_id) REFERENCES public.series(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.run_config
    ADD CONSTRAINT fk_run_config_run_id_run FOREIGN KEY (run_id) REFERENCES public.run(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.run
    ADD CONSTRAINT fk_run_environment_id_environment FOREIGN KEY (environment_id) REFERENCES public.environment(id);
ALTER TABLE ONLY public.run_output
    ADD CONSTRAINT fk_run_output_run_id_run FOREIGN KEY (run_id) REFERENCES public.run(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.run
    ADD CONSTRAINT fk_run_parent_id_run FOREIGN KEY (parent_id) REFERENCES public.run(id) ON DELETE SET NULL;
ALTER TABLE ONLY public.series
    ADD CONSTRAINT fk_series_run_id_run FOREIGN KEY (run_id) REFERENCES public.run(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.solve
    ADD CONSTRAINT fk_solve_run_id_run FOREIGN KEY (run_id) REFERENCES public.run(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.solve_trace
    ADD CONSTRAINT fk_solve_trace_solve_id_solve FOREIGN KEY (solve_id) REFERENCES public.solve(id) ON DELETE CASCADE;
