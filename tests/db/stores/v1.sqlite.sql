BEGIN TRANSACTION;
CREATE TABLE environment (
	id INTEGER NOT NULL, 
	fingerprint TEXT NOT NULL, 
	python TEXT, 
	torch TEXT, 
	os TEXT, 
	cpu TEXT, 
	gpu TEXT, 
	packages JSON, 
	details JSON, 
	CONSTRAINT pk_environment PRIMARY KEY (id), 
	CONSTRAINT uq_environment_fingerprint UNIQUE (fingerprint)
);
INSERT INTO "environment" VALUES(1,'96cfbe8ac0338b88cf4bf48f675a0d5da689f5819c7d5f02537fcbc01c3abcb5','3.11.7','2.13.0+cpu','Linux-6.18.44-fc-v595-x86_64-with-glibc2.36','AMD EPYC',NULL,'{"deq-lab":"0.1.0","numpy":"2.4.6","sacred":"0.8.7","scipy":"1.17.1","sqlalchemy":"2.1.9","torch":"2.13.0+cpu"}','{"cores":2,"threads":1}');
INSERT INTO "environment" VALUES(2,'831da6fe5c05cbc87362cff6acf2dbff9511c1d9651cd194ec8677f6f3976aca','3.11.7','2.13.0','Linux-6.18.44-fc-v595-x86_64-with-glibc2.36','AMD EPYC',NULL,'{"numpy":"2.4.6","sacred":"0.8.7"}',NULL);
INSERT INTO "environment" VALUES(3,'cf6443760d8b92c180a4d96d0ca80e3b2401b33dd4d5dd13afb1929f969babac','3.11.7',NULL,'Linux-6.18.44-fc-v595-x86_64-with-glibc2.36','AMD EPYC',NULL,'{"numpy":"2.4.6","sacred":"0.8.7"}',NULL);
CREATE TABLE grad_check (
	id INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	ord INTEGER NOT NULL, 
	outer_step INTEGER, 
	solve_id INTEGER, 
	adjoint_id INTEGER, 
	target TEXT, 
	method TEXT, 
	options JSON, 
	reference TEXT, 
	rel_err DOUBLE, 
	cosine DOUBLE, 
	norm DOUBLE, 
	norm_ref DOUBLE, 
	norm_ratio DOUBLE, 
	n INTEGER, 
	fwd_residual DOUBLE, 
	bwd_residual DOUBLE, 
	reltol DOUBLE, 
	dtype TEXT, 
	kept_bytes INTEGER, 
	history_bytes INTEGER, 
	peak_bytes INTEGER, 
	forward_seconds DOUBLE, 
	forward_seconds_q1 DOUBLE, 
	forward_seconds_q3 DOUBLE, 
	backward_seconds DOUBLE, 
	backward_seconds_q1 DOUBLE, 
	backward_seconds_q3 DOUBLE, 
	products INTEGER, 
	loss DOUBLE, 
	loss_ref DOUBLE, 
	state_err DOUBLE, 
	extra JSON, 
	CONSTRAINT pk_grad_check PRIMARY KEY (id), 
	CONSTRAINT uq_grad_check_run_id_ord UNIQUE (run_id, ord), 
	CONSTRAINT fk_grad_check_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE, 
	CONSTRAINT fk_grad_check_solve_id_solve FOREIGN KEY(solve_id) REFERENCES solve (id) ON DELETE CASCADE, 
	CONSTRAINT fk_grad_check_adjoint_id_solve FOREIGN KEY(adjoint_id) REFERENCES solve (id) ON DELETE CASCADE, 
	CONSTRAINT ck_grad_check_rel_err_finite CHECK (abs(rel_err) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_cosine_finite CHECK (abs(cosine) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_norm_finite CHECK (abs(norm) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_norm_ref_finite CHECK (abs(norm_ref) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_norm_ratio_finite CHECK (abs(norm_ratio) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_n_count CHECK (n >= 0), 
	CONSTRAINT ck_grad_check_fwd_residual_finite CHECK (abs(fwd_residual) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_bwd_residual_finite CHECK (abs(bwd_residual) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_reltol_finite CHECK (abs(reltol) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_kept_bytes_count CHECK (kept_bytes >= 0), 
	CONSTRAINT ck_grad_check_history_bytes_count CHECK (history_bytes >= 0), 
	CONSTRAINT ck_grad_check_peak_bytes_count CHECK (peak_bytes >= 0), 
	CONSTRAINT ck_grad_check_forward_seconds_finite CHECK (abs(forward_seconds) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_forward_seconds_q1_finite CHECK (abs(forward_seconds_q1) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_forward_seconds_q3_finite CHECK (abs(forward_seconds_q3) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_backward_seconds_finite CHECK (abs(backward_seconds) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_backward_seconds_q1_finite CHECK (abs(backward_seconds_q1) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_backward_seconds_q3_finite CHECK (abs(backward_seconds_q3) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_products_count CHECK (products >= 0), 
	CONSTRAINT ck_grad_check_loss_finite CHECK (abs(loss) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_loss_ref_finite CHECK (abs(loss_ref) <= 1.7976931348623157e308), 
	CONSTRAINT ck_grad_check_state_err_finite CHECK (abs(state_err) <= 1.7976931348623157e308)
);
INSERT INTO "grad_check" VALUES(1,1,0,0,1,2,'parameters','implicit','{"certificate":true,"max_products":100,"name":"implicit","on_failure":"warn","precondition":null,"reltol":null,"solver":{"name":"gmres","restart":null},"warm_start":false}','float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian',4.04564946046389456446e-03,9.99992635495239645671e-01,1.84164146008797580122e+00,1.83930075506999157752e+00,1.0012726059137051493e+00,584,8.32534767687320709228e-03,2.83166556619107723236e-03,0.01,'float32',640,2696,NULL,3.52880100035690702497e-03,3.52880100035690702497e-03,3.52880100035690702497e-03,4.68672100032563321292e-03,4.68672100032563321292e-03,4.68672100032563321292e-03,6,2.40912771224975585937e+00,2.41074857508058126853e+00,4.43667058518163945346e-03,NULL);
INSERT INTO "grad_check" VALUES(2,1,1,1,3,4,'parameters','implicit','{"certificate":true,"max_products":100,"name":"implicit","on_failure":"warn","precondition":null,"reltol":null,"solver":{"name":"gmres","restart":null},"warm_start":false}','float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian',4.6772011544256794093e-06,9.99999999989121590715e-01,1.83930138785999908179e+00,1.83930075506999157752e+00,1.00000034403835580398e+00,584,1.28158926600008271634e-05,1.35684246060918667353e-08,1.0e-05,'float32',640,9480,NULL,4.90057899878593161702e-03,4.90057899878593161702e-03,4.90057899878593161702e-03,5.17491699793026782572e-03,5.17491699793026782572e-03,5.17491699793026782572e-03,9,2.41074442863464355468e+00,2.41074857508058126853e+00,1.04122600461974352723e-05,NULL);
INSERT INTO "grad_check" VALUES(3,2,0,0,5,NULL,'parameters','unrolled','{"last":null,"name":"unrolled"}','float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian',2.7829547933003431076e-02,9.99648750975877686819e-01,1.85427350319055017635e+00,1.83930075506999157752e+00,1.00814045668131568866e+00,584,8.32534767687320709228e-03,NULL,0.01,'float32',6988,1640,NULL,5.30052300018724054098e-03,5.30052300018724054098e-03,5.30052300018724054098e-03,3.56638699668110348284e-03,3.56638699668110348284e-03,3.56638699668110348284e-03,NULL,2.40912771224975585937e+00,2.41074857508058126853e+00,4.43667058518163945346e-03,NULL);
INSERT INTO "grad_check" VALUES(4,2,1,1,6,NULL,'parameters','unrolled','{"last":null,"name":"unrolled"}','float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian',1.9099310725969594971e-04,0.999999982071848,1.83934659645018139251e+00,1.83930075506999157752e+00,1.0000249232650306741e+00,584,1.28158926600008271634e-05,NULL,1.0e-05,'float32',23180,4008,NULL,9.2130939992784988135e-03,9.2130939992784988135e-03,9.2130939992784988135e-03,5.86746499902801588177e-03,5.86746499902801588177e-03,5.86746499902801588177e-03,NULL,2.41074442863464355468e+00,2.41074857508058126853e+00,1.04122600461974352723e-05,NULL);
INSERT INTO "grad_check" VALUES(5,3,0,0,7,8,'parameters','implicit','{"certificate":true,"max_products":100,"name":"implicit","on_failure":"warn","precondition":null,"reltol":null,"solver":{"name":"gmres","restart":null},"warm_start":false}','float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian',4.23312223164281666021e-03,9.99992227559370228107e-01,1.84212071543483513202e+00,1.83930075506999157752e+00,1.00153316979676665354e+00,584,8.7758321315050125122e-03,2.8325445018708705902e-03,0.01,'float32',640,2424,NULL,2.61265000153798609972e-03,2.61265000153798609972e-03,2.61265000153798609972e-03,4.38380199921084567904e-03,4.38380199921084567904e-03,4.38380199921084567904e-03,6,2.40780711174011230468e+00,2.41074857508058126853e+00,5.52498078832585649833e-03,NULL);
INSERT INTO "grad_check" VALUES(6,3,1,1,9,10,'parameters','implicit','{"certificate":true,"max_products":100,"name":"implicit","on_failure":"warn","precondition":null,"reltol":null,"solver":{"name":"gmres","restart":null},"warm_start":false}','float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian',3.07320515630755060169e-06,9.9999999999528710326e-01,1.83930100849027566844e+00,1.83930075506999157752e+00,1.0000001377807752334e+00,584,1.10427254185196943581e-05,3.10807628522979939589e-08,1.0e-05,'float32',640,3320,NULL,4.0511480001441668719e-03,4.0511480001441668719e-03,4.0511480001441668719e-03,4.64574000216089189052e-03,4.64574000216089189052e-03,4.64574000216089189052e-03,9,2.41074895858764648437e+00,2.41074857508058126853e+00,6.79353733138006648595e-06,NULL);
INSERT INTO "grad_check" VALUES(7,4,0,0,11,NULL,'parameters','unrolled','{"last":null,"name":"unrolled"}','float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian',3.10908022003933831589e-02,9.9961540114922320388e-01,1.86444768970962715393e+00,1.83930075506999157752e+00,1.01367200800104,584,0.0087758032605052,NULL,0.01,'float32',8676,1368,NULL,2.87573100285953842103e-03,2.87573100285953842103e-03,2.87573100285953842103e-03,1.77132099997834302484e-03,1.77132099997834302484e-03,1.77132099997834302484e-03,NULL,2.40780687332153320312e+00,2.41074857508058126853e+00,5.52499991601495491627e-03,NULL);
INSERT INTO "grad_check" VALUES(8,4,1,1,12,NULL,'parameters','unrolled','{"last":null,"name":"unrolled"}','float64 equilibrium with a relative residual of 9.1e-17, adjoint solved with the dense Jacobian',1.21649978929880181639e-05,9.99999999952020490745e-01,1.83931402192459336752e+00,1.83930075506999157752e+00,1.00000721298817785154e+00,584,1.11160761662176810204e-05,NULL,1.0e-05,'float32',32364,2872,NULL,5.47520300096948631107e-03,5.47520300096948631107e-03,5.47520300096948631107e-03,2.7470409986563026905e-03,2.7470409986563026905e-03,2.7470409986563026905e-03,NULL,2.41074895858764648437e+00,2.41074857508058126853e+00,6.84627408532308876203e-06,NULL);
INSERT INTO "grad_check" VALUES(9,6,0,NULL,13,14,NULL,'implicit',NULL,NULL,NULL,1.0,1.0e-300,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"nonfinite":{"rel_err":"inf"},"why":"a test"}');
INSERT INTO "grad_check" VALUES(10,6,1,NULL,NULL,NULL,'θ','shine',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "grad_check" VALUES(11,8,0,0,16,NULL,'x','implicit',NULL,NULL,3.51358160470197140759e-05,NULL,1.5554643927606408571e+00,1.5554356429362,NULL,4,NULL,NULL,0.001,NULL,32,NULL,NULL,NULL,NULL,NULL,8.6818999989191070199e-05,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "grad_check" VALUES(12,8,1,1,17,NULL,'x','implicit',NULL,NULL,5.92006937356388171153e-08,NULL,1.555435599831352933e+00,1.5554356429362,NULL,4,NULL,NULL,1.0e-06,NULL,32,NULL,NULL,NULL,NULL,NULL,4.40459989476949e-05,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "grad_check" VALUES(13,9,0,0,18,NULL,'x','implicit',NULL,NULL,5.45031625211746354213e-05,NULL,1.44699518621523748329e+00,1.44705371513222136314e+00,NULL,4,NULL,NULL,0.001,NULL,32,NULL,NULL,NULL,NULL,NULL,5.11159996676724404096e-05,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "grad_check" VALUES(14,9,1,1,19,NULL,'x','implicit',NULL,NULL,4.68324480497247342758e-08,NULL,1.44705376141853259142e+00,1.44705371513222136314e+00,NULL,4,NULL,NULL,1.0e-06,NULL,32,NULL,NULL,NULL,NULL,NULL,3.21679981425404548645e-05,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "grad_check" VALUES(15,10,0,0,20,NULL,'x','implicit',NULL,NULL,1.30544763120571933104e-07,NULL,1.55543550201546731948e+00,1.5554356429362,NULL,4,NULL,NULL,0.001,NULL,32,NULL,NULL,NULL,NULL,NULL,5.23579983564559370279e-05,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "grad_check" VALUES(16,10,1,1,21,NULL,'x','implicit',NULL,NULL,1.55533048723517178441e-14,NULL,1.5554356429361866354e+00,1.5554356429362,NULL,4,NULL,NULL,1.0e-06,NULL,32,NULL,NULL,NULL,NULL,NULL,3.04450004477985203266e-05,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE point (
	series_id INTEGER NOT NULL, 
	ord INTEGER NOT NULL, 
	step DOUBLE, 
	value DOUBLE, 
	flag SMALLINT NOT NULL, 
	t DOUBLE, 
	CONSTRAINT pk_point PRIMARY KEY (series_id, ord), 
	CONSTRAINT ck_point_flag CHECK (flag BETWEEN 0 AND 4), 
	CONSTRAINT fk_point_series_id_series FOREIGN KEY(series_id) REFERENCES series (id) ON DELETE CASCADE, 
	CONSTRAINT ck_point_step_finite CHECK (abs(step) <= 1.7976931348623157e308), 
	CONSTRAINT ck_point_value_finite CHECK (abs(value) <= 1.7976931348623157e308), 
	CONSTRAINT ck_point_t_finite CHECK (abs(t) <= 1.7976931348623157e308)
)
 WITHOUT ROWID

;
INSERT INTO "point" VALUES(1,0,0.0,3.0,0,1.79552798678981709477e+09);
INSERT INTO "point" VALUES(1,1,0.0,NULL,1,1.79552798678983092312e+09);
INSERT INTO "point" VALUES(1,2,1.0,1.0,0,1.79552798678983402251e+09);
INSERT INTO "point" VALUES(1,3,1.0,NULL,2,1.7955279867898368835e+09);
INSERT INTO "point" VALUES(1,4,2.0,2.0,0,1795527986.78984);
INSERT INTO "point" VALUES(1,5,2.0,1.0,0,1.79552798678984189034e+09);
INSERT INTO "point" VALUES(1,6,3.0,NULL,3,1.79552798678984403607e+09);
INSERT INTO "point" VALUES(2,0,0.0,1.0,0,1.79552798678985309601e+09);
INSERT INTO "point" VALUES(2,1,0.5,0.5,0,1.79552798678985810277e+09);
INSERT INTO "point" VALUES(2,2,1.0,3.33333333333333314829e-01,0,1.79552798678986096385e+09);
INSERT INTO "point" VALUES(2,3,1.5,0.25,0,1.79552798678986310961e+09);
INSERT INTO "point" VALUES(2,4,2.0,0.2,0,1.79552798678986501694e+09);
INSERT INTO "point" VALUES(2,5,2.5,1.66666666666666657414e-01,0,1.7955279867898659706e+09);
INSERT INTO "point" VALUES(2,6,3.0,1.42857142857142849212e-01,0,1.79552798678986811633e+09);
INSERT INTO "point" VALUES(2,7,3.5,0.125,0,1.79552798678986907012e+09);
INSERT INTO "point" VALUES(2,8,4.0,1.11111111111111104943e-01,0,1.79552798678987097745e+09);
INSERT INTO "point" VALUES(2,9,4.5,0.1,0,1.79552798678987193111e+09);
INSERT INTO "point" VALUES(2,10,5.0,9.09090909090909116141e-02,0,1.79552798678987288478e+09);
INSERT INTO "point" VALUES(2,11,5.5,8.33333333333333287074e-02,0,1.7955279867898750305e+09);
INSERT INTO "point" VALUES(2,12,6.0,7.6923076923076927347e-02,0,1.79552798678987598417e+09);
INSERT INTO "point" VALUES(2,13,6.5,7.14285714285714246063e-02,0,1.79552798678987789149e+09);
INSERT INTO "point" VALUES(2,14,7.0,6.66666666666666657414e-02,0,1.79552798678987908368e+09);
INSERT INTO "point" VALUES(2,15,7.5,0.0625,0,1795527986.78988);
INSERT INTO "point" VALUES(2,16,8.0,5.8823529411764705066e-02,0,1.79552798678988599773e+09);
INSERT INTO "point" VALUES(2,17,8.5,5.55555555555555524716e-02,0,1.79552798678988790506e+09);
INSERT INTO "point" VALUES(2,18,9.0,5.26315789473684181309e-02,0,1.79552798678988909716e+09);
INSERT INTO "point" VALUES(2,19,9.5,0.05,0,1.79552798678989100457e+09);
INSERT INTO "point" VALUES(2,20,10.0,4.76190476190476164042e-02,0,1.79552798678989195824e+09);
INSERT INTO "point" VALUES(2,21,10.5,4.5454545454545455807e-02,0,1.795527986789894104e+09);
INSERT INTO "point" VALUES(2,22,11.0,4.34782608695652161845e-02,0,1.79552798678989505767e+09);
INSERT INTO "point" VALUES(2,23,11.5,4.16666666666666643537e-02,0,1.795527986789896965e+09);
INSERT INTO "point" VALUES(2,24,12.0,0.04,0,1.79552798678989791866e+09);
INSERT INTO "point" VALUES(2,25,12.5,3.84615384615384636735e-02,0,1795527986.7899);
INSERT INTO "point" VALUES(2,26,13.0,3.7037037037037034981e-02,0,1.79552798678990197184e+09);
INSERT INTO "point" VALUES(2,27,13.5,3.57142857142857123031e-02,0,1.79552798678990292551e+09);
INSERT INTO "point" VALUES(2,28,14.0,3.44827586206896546938e-02,0,1.79552798678990507127e+09);
INSERT INTO "point" VALUES(2,29,14.5,3.33333333333333328707e-02,0,1.79552798678990602494e+09);
INSERT INTO "point" VALUES(2,30,15.0,3.22580645161290313627e-02,0,1.7955279867899069786e+09);
INSERT INTO "point" VALUES(2,31,15.5,0.03125,0,1.79552798678990888593e+09);
INSERT INTO "point" VALUES(2,32,16.0,3.03030303030303038713e-02,0,1795527986.78991);
INSERT INTO "point" VALUES(2,33,16.5,2.9411764705882352533e-02,0,1.79552798678991103178e+09);
INSERT INTO "point" VALUES(2,34,17.0,2.85714285714285705364e-02,0,1.79552798678991293911e+09);
INSERT INTO "point" VALUES(2,35,17.5,2.77777777777777762358e-02,0,1.79552798678991389277e+09);
INSERT INTO "point" VALUES(2,36,18.0,2.70270270270270285273e-02,0,1.79552798678991508483e+09);
INSERT INTO "point" VALUES(2,37,18.5,2.63157894736842090654e-02,0,1.79552798678991699216e+09);
INSERT INTO "point" VALUES(2,38,19.0,2.5641025641025640136e-02,0,1.79552798678991794583e+09);
INSERT INTO "point" VALUES(2,39,19.5,0.025,0,1795527986.78992);
INSERT INTO "point" VALUES(2,40,20.0,2.43902439024390252364e-02,0,1.79552798678992104534e+09);
INSERT INTO "point" VALUES(2,41,20.5,2.38095238095238082021e-02,0,1.79552798678992199901e+09);
INSERT INTO "point" VALUES(2,42,21.0,2.32558139534883717702e-02,0,1.79552798678992390634e+09);
INSERT INTO "point" VALUES(2,43,21.5,2.27272727272727279035e-02,0,1.79552798678992509839e+09);
INSERT INTO "point" VALUES(2,44,22.0,2.22222222222222230703e-02,0,1.79552798678992700572e+09);
INSERT INTO "point" VALUES(2,45,22.5,2.17391304347826080922e-02,0,1.79552798678992795939e+09);
INSERT INTO "point" VALUES(2,46,23.0,2.12765957446808505471e-02,0,1.79552798678992891305e+09);
INSERT INTO "point" VALUES(2,47,23.5,2.08333333333333321768e-02,0,1.7955279867899310589e+09);
INSERT INTO "point" VALUES(2,48,24.0,2.04081632653061208204e-02,0,1.79552798678993201257e+09);
INSERT INTO "point" VALUES(2,49,24.5,0.02,0,1.79552798678993296623e+09);
INSERT INTO "point" VALUES(3,0,0.0,NULL,1,1.795527986789935112e+09);
INSERT INTO "point" VALUES(4,0,0.0,NULL,4,1795527986.78994);
INSERT INTO "point" VALUES(5,0,0.0,NULL,2,1.79552798682986307146e+09);
INSERT INTO "point" VALUES(6,0,0.0,1.0,0,1.7955279877032868862e+09);
CREATE TABLE run (
	id INTEGER NOT NULL, 
	uuid TEXT NOT NULL, 
	experiment TEXT NOT NULL, 
	command TEXT, 
	study TEXT, 
	trial TEXT, 
	status TEXT NOT NULL, 
	queued_at TEXT, 
	started_at TEXT, 
	heartbeat_at TEXT, 
	stopped_at TEXT, 
	seconds DOUBLE, 
	seed INTEGER, 
	config JSON NOT NULL, 
	config_hash TEXT NOT NULL, 
	result JSON, 
	result_value DOUBLE, 
	info JSON, 
	meta JSON, 
	comment TEXT, 
	fail_type TEXT, 
	fail_message TEXT, 
	fail_trace TEXT, 
	host TEXT, 
	pid INTEGER, 
	boot_id TEXT, 
	proc_start INTEGER, 
	code JSON, 
	environment_id INTEGER, 
	parent_id INTEGER, 
	CONSTRAINT pk_run PRIMARY KEY (id), 
	CONSTRAINT uq_run_uuid UNIQUE (uuid), 
	CONSTRAINT fk_run_environment_id_environment FOREIGN KEY(environment_id) REFERENCES environment (id), 
	CONSTRAINT fk_run_parent_id_run FOREIGN KEY(parent_id) REFERENCES run (id) ON DELETE SET NULL, 
	CONSTRAINT ck_run_seconds_finite CHECK (abs(seconds) <= 1.7976931348623157e308), 
	CONSTRAINT ck_run_result_value_finite CHECK (abs(result_value) <= 1.7976931348623157e308)
);
INSERT INTO "run" VALUES(1,'361c0ddb-7cb2-43c7-be66-28a440b0bb09','compare','main','small','85e27a7987f4ce8a905a74b7a26190d0daa7e0434b49be40a7a4e99e89e2d466','COMPLETED',NULL,'2026-11-24T13:46:24.118839Z','2026-11-24T13:46:24.188064Z','2026-11-24T13:46:24.188064Z',0.069225,0,'{"abstol":0.0,"autocast":null,"batch":2,"data":{"name":"digits"},"data_sha256":"b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641","device":"cpu","dtype":"float32","fixed_budget":false,"gradient":{"certificate":true,"max_products":100,"name":"implicit","on_failure":"warn","precondition":null,"reltol":null,"solver":{"name":"gmres","restart":null},"warm_start":false},"learning_rate":0.01,"max_evaluations":50,"model":{"classes":10,"gain":0.95,"injection":1.0,"inputs":64,"name":"mlp","width":8},"norm":"l2","reltol":[0.01,1e-05],"repeat_seconds":0.001,"repeats":1,"seed":0,"solver":{"kind":"good","line_search":false,"name":"broyden","reduction":"svd","window":null},"threads":1,"train_steps":0}','491bd9e36b63b505234cb17712b241b82d808e55c3e7305ba2bac38ec7707837','{"evaluations":11.0,"gradient_error":4.677201154425679e-06,"seconds":0.004900578998785932}',NULL,NULL,'{"command":"main","config_updates":{"abstol":0.0,"autocast":null,"batch":2,"data":{"name":"digits"},"data_sha256":"b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641","device":"cpu","dtype":"float32","fixed_budget":false,"gradient":{"certificate":true,"max_products":100,"name":"implicit","on_failure":"warn","precondition":null,"reltol":null,"solver":{"name":"gmres","restart":null},"warm_start":false},"learning_rate":0.01,"max_evaluations":50,"model":{"classes":10,"gain":0.95,"injection":1.0,"inputs":64,"name":"mlp","width":8},"norm":"l2","reltol":[0.01,1e-05],"repeat_seconds":0.001,"repeats":1,"seed":0,"solver":{"kind":"good","line_search":false,"name":"broyden","reduction":"svd","window":null},"threads":1,"train_steps":0},"named_configs":[],"options":{"--beat-interval":null,"--capture":null,"--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"ERROR","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,NULL,NULL,NULL,'lab',29699,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795791,'{"base_dir":"/opt/deq-lab/experiments","mainfile":"compare.py","repositories":[{"commit":"6a41b1b7a26b97033bfa505c659521e1c91fdcb4","dirty":false,"url":"file:///opt/deq-lab"}],"sources":[["compare.py","f56ac4cc0157b5cc99f8a4e55cfcf7da"]]}',1,NULL);
INSERT INTO "run" VALUES(2,'bd28c756-1ede-4d1d-acf5-c3986bccf2ef','compare','main','small','03b065eea55fffe716467d436231e4b0bac2b266771400b65fdc1e0e23cb3f46','COMPLETED',NULL,'2026-11-24T13:46:24.200850Z','2026-11-24T13:46:24.256916Z','2026-11-24T13:46:24.256916Z',0.056066,0,'{"abstol":0.0,"autocast":null,"batch":2,"data":{"name":"digits"},"data_sha256":"b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641","device":"cpu","dtype":"float32","fixed_budget":false,"gradient":{"last":null,"name":"unrolled"},"learning_rate":0.01,"max_evaluations":50,"model":{"classes":10,"gain":0.95,"injection":1.0,"inputs":64,"name":"mlp","width":8},"norm":"l2","reltol":[0.01,1e-05],"repeat_seconds":0.001,"repeats":1,"seed":0,"solver":{"kind":"good","line_search":false,"name":"broyden","reduction":"svd","window":null},"threads":1,"train_steps":0}','09397c6038df245ab245e8767a969fb4ebe0765e6d191b11385bb930a66a66b2','{"evaluations":11.0,"gradient_error":0.00019099310725969595,"seconds":0.009213093999278499}',NULL,NULL,'{"command":"main","config_updates":{"abstol":0.0,"autocast":null,"batch":2,"data":{"name":"digits"},"data_sha256":"b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641","device":"cpu","dtype":"float32","fixed_budget":false,"gradient":{"last":null,"name":"unrolled"},"learning_rate":0.01,"max_evaluations":50,"model":{"classes":10,"gain":0.95,"injection":1.0,"inputs":64,"name":"mlp","width":8},"norm":"l2","reltol":[0.01,1e-05],"repeat_seconds":0.001,"repeats":1,"seed":0,"solver":{"kind":"good","line_search":false,"name":"broyden","reduction":"svd","window":null},"threads":1,"train_steps":0},"named_configs":[],"options":{"--beat-interval":null,"--capture":null,"--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"ERROR","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,NULL,NULL,NULL,'lab',29699,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795791,'{"base_dir":"/opt/deq-lab/experiments","mainfile":"compare.py","repositories":[{"commit":"6a41b1b7a26b97033bfa505c659521e1c91fdcb4","dirty":false,"url":"file:///opt/deq-lab"}],"sources":[["compare.py","f56ac4cc0157b5cc99f8a4e55cfcf7da"]]}',1,NULL);
INSERT INTO "run" VALUES(3,'c794ae1c-9ab5-4afc-b922-189ab7acf614','compare','main','small','a3e55e6d87cc3994c1ca3bbc06c4eee1a6e32450dd5ac59c8baba64e0221d31d','COMPLETED',NULL,'2026-11-24T13:46:24.269748Z','2026-11-24T13:46:24.314075Z','2026-11-24T13:46:24.314075Z',0.044327,0,'{"abstol":0.0,"autocast":null,"batch":2,"data":{"name":"digits"},"data_sha256":"b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641","device":"cpu","dtype":"float32","fixed_budget":false,"gradient":{"certificate":true,"max_products":100,"name":"implicit","on_failure":"warn","precondition":null,"reltol":null,"solver":{"name":"gmres","restart":null},"warm_start":false},"learning_rate":0.01,"max_evaluations":50,"model":{"classes":10,"gain":0.95,"injection":1.0,"inputs":64,"name":"mlp","width":8},"norm":"l2","reltol":[0.01,1e-05],"repeat_seconds":0.001,"repeats":1,"seed":0,"solver":{"filter":0.0,"kind":"II","mixing":1.0,"name":"anderson","restart":null,"ridge":null,"window":10},"threads":1,"train_steps":0}','69e491bee4a894b76e730a9625d2b2b1adc54ebd9fe3677b9acc46524b11a71e','{"evaluations":11.0,"gradient_error":3.0732051563075506e-06,"seconds":0.004051148000144167}',NULL,NULL,'{"command":"main","config_updates":{"abstol":0.0,"autocast":null,"batch":2,"data":{"name":"digits"},"data_sha256":"b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641","device":"cpu","dtype":"float32","fixed_budget":false,"gradient":{"certificate":true,"max_products":100,"name":"implicit","on_failure":"warn","precondition":null,"reltol":null,"solver":{"name":"gmres","restart":null},"warm_start":false},"learning_rate":0.01,"max_evaluations":50,"model":{"classes":10,"gain":0.95,"injection":1.0,"inputs":64,"name":"mlp","width":8},"norm":"l2","reltol":[0.01,1e-05],"repeat_seconds":0.001,"repeats":1,"seed":0,"solver":{"filter":0.0,"kind":"II","mixing":1.0,"name":"anderson","restart":null,"ridge":null,"window":10},"threads":1,"train_steps":0},"named_configs":[],"options":{"--beat-interval":null,"--capture":null,"--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"ERROR","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,NULL,NULL,NULL,'lab',29699,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795791,'{"base_dir":"/opt/deq-lab/experiments","mainfile":"compare.py","repositories":[{"commit":"6a41b1b7a26b97033bfa505c659521e1c91fdcb4","dirty":false,"url":"file:///opt/deq-lab"}],"sources":[["compare.py","f56ac4cc0157b5cc99f8a4e55cfcf7da"]]}',1,NULL);
INSERT INTO "run" VALUES(4,'4e2aef67-6dbf-401a-87ea-a85ab30f878b','compare','main','small','2f68f458b68253929d23855f907d9cf64d945a6a48468ff6cde3bbd03cfe5d1f','COMPLETED',NULL,'2026-11-24T13:46:24.324981Z','2026-11-24T13:46:24.360416Z','2026-11-24T13:46:24.360416Z',0.035435,0,'{"abstol":0.0,"autocast":null,"batch":2,"data":{"name":"digits"},"data_sha256":"b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641","device":"cpu","dtype":"float32","fixed_budget":false,"gradient":{"last":null,"name":"unrolled"},"learning_rate":0.01,"max_evaluations":50,"model":{"classes":10,"gain":0.95,"injection":1.0,"inputs":64,"name":"mlp","width":8},"norm":"l2","reltol":[0.01,1e-05],"repeat_seconds":0.001,"repeats":1,"seed":0,"solver":{"filter":0.0,"kind":"II","mixing":1.0,"name":"anderson","restart":null,"ridge":null,"window":10},"threads":1,"train_steps":0}','6454f8dec2e0c6eb4b54488551230091d6eeac74a63128a6849dab3bd56313e2','{"evaluations":11.0,"gradient_error":1.2164997892988018e-05,"seconds":0.005475203000969486}',NULL,NULL,'{"command":"main","config_updates":{"abstol":0.0,"autocast":null,"batch":2,"data":{"name":"digits"},"data_sha256":"b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641","device":"cpu","dtype":"float32","fixed_budget":false,"gradient":{"last":null,"name":"unrolled"},"learning_rate":0.01,"max_evaluations":50,"model":{"classes":10,"gain":0.95,"injection":1.0,"inputs":64,"name":"mlp","width":8},"norm":"l2","reltol":[0.01,1e-05],"repeat_seconds":0.001,"repeats":1,"seed":0,"solver":{"filter":0.0,"kind":"II","mixing":1.0,"name":"anderson","restart":null,"ridge":null,"window":10},"threads":1,"train_steps":0},"named_configs":[],"options":{"--beat-interval":null,"--capture":null,"--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"ERROR","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,NULL,NULL,NULL,'lab',29699,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795791,'{"base_dir":"/opt/deq-lab/experiments","mainfile":"compare.py","repositories":[{"commit":"6a41b1b7a26b97033bfa505c659521e1c91fdcb4","dirty":false,"url":"file:///opt/deq-lab"}],"sources":[["compare.py","f56ac4cc0157b5cc99f8a4e55cfcf7da"]]}',1,NULL);
INSERT INTO "run" VALUES(5,'03f895df-977f-4cc4-960c-caf839e43135','compare','odd','odd','first','COMPLETED',NULL,'2026-11-24T13:46:26.774260Z','2026-11-24T13:46:26.790177Z','2026-11-24T13:46:26.790177Z',0.015917,236271089,'{"batch":4,"data":null,"fixed_budget":false,"gradient":{"name":"implicit","solver":{"name":"dense"}},"max_evaluations":100,"model":{"name":"cosine"},"reltol":[0.001,1e-06],"seed":236271089,"solver":{"mixing":1.0,"name":"picard"}}','705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7','{"loss":{"$float":"nan"},"steps":50,"vector":[0,1,2]}',NULL,'{"note":{"nul":"a�b","of":[1,{"$float":"nan"},"naïve – ☃"]}}','{"command":"odd","named_configs":[],"options":{"--beat-interval":null,"--capture":"sys","--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"ERROR","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,NULL,NULL,NULL,'lab',29688,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795288,'{"base_dir":"/opt/deq-lab/tests/db","mainfile":"toy.py","repositories":[],"sources":[["toy.py","204ebc879bd960132215e3ca837989ec"]]}',2,NULL);
INSERT INTO "run" VALUES(6,'7b8f9dbd-abf1-4c92-8084-043ae673c454','compare','main','odd','second','COMPLETED',NULL,'2026-11-24T13:46:26.802449Z','2026-11-24T13:46:26.814443Z','2026-11-24T13:46:26.814443Z',0.011994,7,'{"a":{"b":[1,{"$float":"inf"}],"long":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","text":"1e-3"},"batch":4,"data":null,"fixed_budget":false,"gradient":{"name":"implicit","solver":{"name":"dense"}},"max_evaluations":100,"model":{"name":"cosine"},"reltol":[0.001,1e-06],"seed":7,"solver":{"mixing":1.0,"name":"picard"}}','7cfdc9c27d9ed240ea17849f6f872639e1851d2307720f042e8ff0761c55a390',NULL,NULL,NULL,'{"command":"main","comment":"a comment – ☃","id":"not-a-uuid","named_configs":[],"options":{"--beat-interval":null,"--capture":null,"--comment":"a comment – ☃","--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":"not-a-uuid","--loglevel":"CRITICAL","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}','a comment – ☃',NULL,NULL,NULL,'lab',29688,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795288,'{"base_dir":"/opt/deq-lab/tests/db","mainfile":"toy.py","repositories":[],"sources":[["toy.py","204ebc879bd960132215e3ca837989ec"]]}',3,5);
INSERT INTO "run" VALUES(7,'45af934a-c508-463d-92b9-cfef642f8513','compare','diverges',NULL,NULL,'DIVERGED',NULL,'2026-11-24T13:46:26.824401Z','2026-11-24T13:46:26.831998Z','2026-11-24T13:46:26.831998Z',0.007597,347712783,'{"batch":4,"data":null,"fixed_budget":false,"gradient":{"name":"implicit","solver":{"name":"dense"}},"max_evaluations":100,"model":{"name":"cosine"},"reltol":[0.001,1e-06],"seed":347712783,"solver":{"mixing":1.0,"name":"picard"}}','705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7',NULL,NULL,NULL,'{"command":"diverges","named_configs":[],"options":{"--beat-interval":null,"--capture":"no","--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"CRITICAL","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,'Diverged','',NULL,'lab',29688,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795288,'{"base_dir":"/opt/deq-lab/tests/db","mainfile":"toy.py","repositories":[],"sources":[["toy.py","204ebc879bd960132215e3ca837989ec"]]}',3,NULL);
INSERT INTO "run" VALUES(8,'343317a4-f9e2-4694-b06a-b7bea84ad46b','compare','main','demo','picard-0','COMPLETED',NULL,'2026-11-24T13:46:26.839295Z','2026-11-24T13:46:26.849299Z','2026-11-24T13:46:26.849299Z',0.010004,0,'{"batch":4,"data":null,"fixed_budget":false,"gradient":{"name":"implicit","solver":{"name":"dense"}},"max_evaluations":100,"model":{"name":"cosine"},"reltol":[0.001,1e-06],"seed":0,"solver":{"mixing":1.0,"name":"picard"}}','705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7',NULL,NULL,NULL,'{"command":"main","named_configs":[],"options":{"--beat-interval":null,"--capture":null,"--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"ERROR","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,NULL,NULL,NULL,'lab',29688,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795288,'{"base_dir":"/opt/deq-lab/tests/db","mainfile":"toy.py","repositories":[],"sources":[["toy.py","204ebc879bd960132215e3ca837989ec"]]}',3,NULL);
INSERT INTO "run" VALUES(9,'15c22f23-b8b0-4722-86fa-aaa9a81e4353','compare','main','demo','picard-1','COMPLETED',NULL,'2026-11-24T13:46:26.859472Z','2026-11-24T13:46:26.869541Z','2026-11-24T13:46:26.869541Z',0.010069,1,'{"batch":4,"data":null,"fixed_budget":false,"gradient":{"name":"implicit","solver":{"name":"dense"}},"max_evaluations":100,"model":{"name":"cosine"},"reltol":[0.001,1e-06],"seed":1,"solver":{"mixing":1.0,"name":"picard"}}','705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7',NULL,NULL,NULL,'{"command":"main","named_configs":[],"options":{"--beat-interval":null,"--capture":null,"--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"ERROR","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,NULL,NULL,NULL,'lab',29688,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795288,'{"base_dir":"/opt/deq-lab/tests/db","mainfile":"toy.py","repositories":[],"sources":[["toy.py","204ebc879bd960132215e3ca837989ec"]]}',3,NULL);
INSERT INTO "run" VALUES(10,'ea5bddeb-c97e-46f8-8e90-c1f21d6ad205','compare','main','demo','newton-0','COMPLETED',NULL,'2026-11-24T13:46:26.879860Z','2026-11-24T13:46:26.892059Z','2026-11-24T13:46:26.892059Z',0.012199,0,'{"batch":4,"data":null,"fixed_budget":false,"gradient":{"name":"implicit","solver":{"name":"dense"}},"max_evaluations":100,"model":{"name":"cosine"},"reltol":[0.001,1e-06],"seed":0,"solver":{"mixing":1.0,"name":"newton"}}','daca1ec68bd9afc08e44a6b53b163fac46c26bf81156bf3949bd3fb5fb8b30d5',NULL,NULL,NULL,'{"command":"main","named_configs":[],"options":{"--beat-interval":null,"--capture":null,"--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"ERROR","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,NULL,NULL,NULL,'lab',29688,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795288,'{"base_dir":"/opt/deq-lab/tests/db","mainfile":"toy.py","repositories":[],"sources":[["toy.py","204ebc879bd960132215e3ca837989ec"]]}',3,NULL);
INSERT INTO "run" VALUES(11,'3ce258d7-d523-4a4c-ab97-a0d59043b2a2','compare','odd','demo','queued','QUEUED','2026-11-24T13:46:26.901256Z',NULL,NULL,NULL,NULL,906691060,'{"batch":4,"data":null,"fixed_budget":false,"gradient":{"name":"implicit","solver":{"name":"dense"}},"max_evaluations":100,"model":{"name":"cosine"},"reltol":[0.001,1e-06],"seed":906691060,"solver":{"mixing":1.0,"name":"picard"}}','705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7',NULL,NULL,NULL,'{"command":"odd","named_configs":[],"options":{"--beat-interval":null,"--capture":null,"--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"ERROR","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":true,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false},"queue_time":"2026-11-24T13:46:26.901256"}',NULL,NULL,NULL,NULL,'lab',29688,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795288,'{"base_dir":"/opt/deq-lab/tests/db","mainfile":"toy.py","repositories":[],"sources":[["toy.py","204ebc879bd960132215e3ca837989ec"]]}',3,NULL);
INSERT INTO "run" VALUES(12,'d3b3faac-67ec-4f8d-b1cd-19955d51924d','compare','fails','demo','ends','FAILED',NULL,'2026-11-24T13:46:26.911194Z','2026-11-24T13:46:26.918241Z','2026-11-24T13:46:26.918241Z',0.007047,745254916,'{"batch":4,"data":null,"fixed_budget":false,"gradient":{"name":"implicit","solver":{"name":"dense"}},"max_evaluations":100,"model":{"name":"cosine"},"reltol":[0.001,1e-06],"seed":745254916,"solver":{"mixing":1.0,"name":"picard"}}','705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7',NULL,NULL,NULL,'{"command":"fails","named_configs":[],"options":{"--beat-interval":null,"--capture":"no","--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"CRITICAL","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,'ArithmeticError','the state is not finite','Traceback (most recent call last):
  File "/opt/deq-lab/.venv/lib/python3.11/site-packages/sacred/config/captured_function.py", line 42, in captured_function
    result = wrapped(*args, **kwargs)
             ^^^^^^^^^^^^^^^^^^^^^^^^
  File "/opt/make/make.py", line 143, in fails
    raise ArithmeticError("the state is not finite")
ArithmeticError: the state is not finite
','lab',29688,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795288,'{"base_dir":"/opt/deq-lab/tests/db","mainfile":"toy.py","repositories":[],"sources":[["toy.py","204ebc879bd960132215e3ca837989ec"]]}',3,NULL);
INSERT INTO "run" VALUES(13,'dfdfb654-048b-410f-8377-bdd9d360281f','compare','interrupted','demo','ends','INTERRUPTED',NULL,'2026-11-24T13:46:26.925314Z','2026-11-24T13:46:26.931845Z','2026-11-24T13:46:26.931845Z',0.006531,384227881,'{"batch":4,"data":null,"fixed_budget":false,"gradient":{"name":"implicit","solver":{"name":"dense"}},"max_evaluations":100,"model":{"name":"cosine"},"reltol":[0.001,1e-06],"seed":384227881,"solver":{"mixing":1.0,"name":"picard"}}','705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7',NULL,NULL,NULL,'{"command":"interrupted","named_configs":[],"options":{"--beat-interval":null,"--capture":"no","--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"CRITICAL","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,'KeyboardInterrupt','',NULL,'lab',29688,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2795288,'{"base_dir":"/opt/deq-lab/tests/db","mainfile":"toy.py","repositories":[],"sources":[["toy.py","204ebc879bd960132215e3ca837989ec"]]}',3,NULL);
INSERT INTO "run" VALUES(14,'10e92fe9-fa0c-4cb7-96b2-2bc683febe4a','compare','main','demo','killed','RUNNING',NULL,'2026-11-24T13:46:27.682339Z','2026-11-24T13:46:27.703307Z',NULL,0.020968,17830550,'{"batch":4,"data":null,"fixed_budget":false,"gradient":{"name":"implicit","solver":{"name":"dense"}},"max_evaluations":100,"model":{"name":"cosine"},"reltol":[0.001,1e-06],"seed":17830550,"solver":{"mixing":1.0,"name":"picard"}}','705f498bd1d2c90b7350d723e5e17ae5e5440f5ea09510ba3d5361d0b6081ac7',NULL,NULL,NULL,'{"command":"main","named_configs":[],"options":{"--beat-interval":null,"--capture":"no","--comment":null,"--debug":false,"--enforce_clean":false,"--file_storage":null,"--force":false,"--help":false,"--id":null,"--loglevel":"ERROR","--mongo_db":null,"--name":null,"--pdb":false,"--print-config":false,"--priority":null,"--queue":false,"--s3":null,"--sql":null,"--tiny_db":null,"--unobserved":false}}',NULL,NULL,NULL,NULL,'lab',29807,'4432ffc7-656c-47cc-b6fc-7e0549c2efad',2796523,'{"base_dir":"/opt/deq-lab/tests/db","mainfile":"toy.py","repositories":[],"sources":[["toy.py","204ebc879bd960132215e3ca837989ec"]]}',3,NULL);
CREATE TABLE run_config (
	run_id INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	num DOUBLE, 
	txt TEXT, 
	kind TEXT NOT NULL, 
	CONSTRAINT pk_run_config PRIMARY KEY (run_id, "key"), 
	CONSTRAINT ck_run_config_kind CHECK (kind IN ('num', 'str', 'bool', 'null', 'json')), 
	CONSTRAINT fk_run_config_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE, 
	CONSTRAINT ck_run_config_num_finite CHECK (abs(num) <= 1.7976931348623157e308)
)
 WITHOUT ROWID

;
INSERT INTO "run_config" VALUES(1,'abstol',0.0,'0.0','num');
INSERT INTO "run_config" VALUES(1,'autocast',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(1,'batch',2.0,'2','num');
INSERT INTO "run_config" VALUES(1,'data.name',NULL,'digits','str');
INSERT INTO "run_config" VALUES(1,'data_sha256',NULL,'b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641','str');
INSERT INTO "run_config" VALUES(1,'device',NULL,'cpu','str');
INSERT INTO "run_config" VALUES(1,'dtype',NULL,'float32','str');
INSERT INTO "run_config" VALUES(1,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(1,'gradient.certificate',NULL,'true','bool');
INSERT INTO "run_config" VALUES(1,'gradient.max_products',100.0,'100','num');
INSERT INTO "run_config" VALUES(1,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(1,'gradient.on_failure',NULL,'warn','str');
INSERT INTO "run_config" VALUES(1,'gradient.precondition',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(1,'gradient.reltol',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(1,'gradient.solver.name',NULL,'gmres','str');
INSERT INTO "run_config" VALUES(1,'gradient.solver.restart',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(1,'gradient.warm_start',NULL,'false','bool');
INSERT INTO "run_config" VALUES(1,'learning_rate',0.01,'0.01','num');
INSERT INTO "run_config" VALUES(1,'max_evaluations',50.0,'50','num');
INSERT INTO "run_config" VALUES(1,'model.classes',10.0,'10','num');
INSERT INTO "run_config" VALUES(1,'model.gain',0.95,'0.95','num');
INSERT INTO "run_config" VALUES(1,'model.injection',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(1,'model.inputs',64.0,'64','num');
INSERT INTO "run_config" VALUES(1,'model.name',NULL,'mlp','str');
INSERT INTO "run_config" VALUES(1,'model.width',8.0,'8','num');
INSERT INTO "run_config" VALUES(1,'norm',NULL,'l2','str');
INSERT INTO "run_config" VALUES(1,'reltol',NULL,'[0.01,1e-05]','json');
INSERT INTO "run_config" VALUES(1,'repeat_seconds',0.001,'0.001','num');
INSERT INTO "run_config" VALUES(1,'repeats',1.0,'1','num');
INSERT INTO "run_config" VALUES(1,'seed',0.0,'0','num');
INSERT INTO "run_config" VALUES(1,'solver.kind',NULL,'good','str');
INSERT INTO "run_config" VALUES(1,'solver.line_search',NULL,'false','bool');
INSERT INTO "run_config" VALUES(1,'solver.name',NULL,'broyden','str');
INSERT INTO "run_config" VALUES(1,'solver.reduction',NULL,'svd','str');
INSERT INTO "run_config" VALUES(1,'solver.window',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(1,'threads',1.0,'1','num');
INSERT INTO "run_config" VALUES(1,'train_steps',0.0,'0','num');
INSERT INTO "run_config" VALUES(2,'abstol',0.0,'0.0','num');
INSERT INTO "run_config" VALUES(2,'autocast',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(2,'batch',2.0,'2','num');
INSERT INTO "run_config" VALUES(2,'data.name',NULL,'digits','str');
INSERT INTO "run_config" VALUES(2,'data_sha256',NULL,'b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641','str');
INSERT INTO "run_config" VALUES(2,'device',NULL,'cpu','str');
INSERT INTO "run_config" VALUES(2,'dtype',NULL,'float32','str');
INSERT INTO "run_config" VALUES(2,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(2,'gradient.last',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(2,'gradient.name',NULL,'unrolled','str');
INSERT INTO "run_config" VALUES(2,'learning_rate',0.01,'0.01','num');
INSERT INTO "run_config" VALUES(2,'max_evaluations',50.0,'50','num');
INSERT INTO "run_config" VALUES(2,'model.classes',10.0,'10','num');
INSERT INTO "run_config" VALUES(2,'model.gain',0.95,'0.95','num');
INSERT INTO "run_config" VALUES(2,'model.injection',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(2,'model.inputs',64.0,'64','num');
INSERT INTO "run_config" VALUES(2,'model.name',NULL,'mlp','str');
INSERT INTO "run_config" VALUES(2,'model.width',8.0,'8','num');
INSERT INTO "run_config" VALUES(2,'norm',NULL,'l2','str');
INSERT INTO "run_config" VALUES(2,'reltol',NULL,'[0.01,1e-05]','json');
INSERT INTO "run_config" VALUES(2,'repeat_seconds',0.001,'0.001','num');
INSERT INTO "run_config" VALUES(2,'repeats',1.0,'1','num');
INSERT INTO "run_config" VALUES(2,'seed',0.0,'0','num');
INSERT INTO "run_config" VALUES(2,'solver.kind',NULL,'good','str');
INSERT INTO "run_config" VALUES(2,'solver.line_search',NULL,'false','bool');
INSERT INTO "run_config" VALUES(2,'solver.name',NULL,'broyden','str');
INSERT INTO "run_config" VALUES(2,'solver.reduction',NULL,'svd','str');
INSERT INTO "run_config" VALUES(2,'solver.window',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(2,'threads',1.0,'1','num');
INSERT INTO "run_config" VALUES(2,'train_steps',0.0,'0','num');
INSERT INTO "run_config" VALUES(3,'abstol',0.0,'0.0','num');
INSERT INTO "run_config" VALUES(3,'autocast',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(3,'batch',2.0,'2','num');
INSERT INTO "run_config" VALUES(3,'data.name',NULL,'digits','str');
INSERT INTO "run_config" VALUES(3,'data_sha256',NULL,'b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641','str');
INSERT INTO "run_config" VALUES(3,'device',NULL,'cpu','str');
INSERT INTO "run_config" VALUES(3,'dtype',NULL,'float32','str');
INSERT INTO "run_config" VALUES(3,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(3,'gradient.certificate',NULL,'true','bool');
INSERT INTO "run_config" VALUES(3,'gradient.max_products',100.0,'100','num');
INSERT INTO "run_config" VALUES(3,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(3,'gradient.on_failure',NULL,'warn','str');
INSERT INTO "run_config" VALUES(3,'gradient.precondition',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(3,'gradient.reltol',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(3,'gradient.solver.name',NULL,'gmres','str');
INSERT INTO "run_config" VALUES(3,'gradient.solver.restart',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(3,'gradient.warm_start',NULL,'false','bool');
INSERT INTO "run_config" VALUES(3,'learning_rate',0.01,'0.01','num');
INSERT INTO "run_config" VALUES(3,'max_evaluations',50.0,'50','num');
INSERT INTO "run_config" VALUES(3,'model.classes',10.0,'10','num');
INSERT INTO "run_config" VALUES(3,'model.gain',0.95,'0.95','num');
INSERT INTO "run_config" VALUES(3,'model.injection',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(3,'model.inputs',64.0,'64','num');
INSERT INTO "run_config" VALUES(3,'model.name',NULL,'mlp','str');
INSERT INTO "run_config" VALUES(3,'model.width',8.0,'8','num');
INSERT INTO "run_config" VALUES(3,'norm',NULL,'l2','str');
INSERT INTO "run_config" VALUES(3,'reltol',NULL,'[0.01,1e-05]','json');
INSERT INTO "run_config" VALUES(3,'repeat_seconds',0.001,'0.001','num');
INSERT INTO "run_config" VALUES(3,'repeats',1.0,'1','num');
INSERT INTO "run_config" VALUES(3,'seed',0.0,'0','num');
INSERT INTO "run_config" VALUES(3,'solver.filter',0.0,'0.0','num');
INSERT INTO "run_config" VALUES(3,'solver.kind',NULL,'II','str');
INSERT INTO "run_config" VALUES(3,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(3,'solver.name',NULL,'anderson','str');
INSERT INTO "run_config" VALUES(3,'solver.restart',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(3,'solver.ridge',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(3,'solver.window',10.0,'10','num');
INSERT INTO "run_config" VALUES(3,'threads',1.0,'1','num');
INSERT INTO "run_config" VALUES(3,'train_steps',0.0,'0','num');
INSERT INTO "run_config" VALUES(4,'abstol',0.0,'0.0','num');
INSERT INTO "run_config" VALUES(4,'autocast',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(4,'batch',2.0,'2','num');
INSERT INTO "run_config" VALUES(4,'data.name',NULL,'digits','str');
INSERT INTO "run_config" VALUES(4,'data_sha256',NULL,'b72c663395fc5fce30ca4530c06d877426d040dc185e651527dbf5c3236bf641','str');
INSERT INTO "run_config" VALUES(4,'device',NULL,'cpu','str');
INSERT INTO "run_config" VALUES(4,'dtype',NULL,'float32','str');
INSERT INTO "run_config" VALUES(4,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(4,'gradient.last',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(4,'gradient.name',NULL,'unrolled','str');
INSERT INTO "run_config" VALUES(4,'learning_rate',0.01,'0.01','num');
INSERT INTO "run_config" VALUES(4,'max_evaluations',50.0,'50','num');
INSERT INTO "run_config" VALUES(4,'model.classes',10.0,'10','num');
INSERT INTO "run_config" VALUES(4,'model.gain',0.95,'0.95','num');
INSERT INTO "run_config" VALUES(4,'model.injection',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(4,'model.inputs',64.0,'64','num');
INSERT INTO "run_config" VALUES(4,'model.name',NULL,'mlp','str');
INSERT INTO "run_config" VALUES(4,'model.width',8.0,'8','num');
INSERT INTO "run_config" VALUES(4,'norm',NULL,'l2','str');
INSERT INTO "run_config" VALUES(4,'reltol',NULL,'[0.01,1e-05]','json');
INSERT INTO "run_config" VALUES(4,'repeat_seconds',0.001,'0.001','num');
INSERT INTO "run_config" VALUES(4,'repeats',1.0,'1','num');
INSERT INTO "run_config" VALUES(4,'seed',0.0,'0','num');
INSERT INTO "run_config" VALUES(4,'solver.filter',0.0,'0.0','num');
INSERT INTO "run_config" VALUES(4,'solver.kind',NULL,'II','str');
INSERT INTO "run_config" VALUES(4,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(4,'solver.name',NULL,'anderson','str');
INSERT INTO "run_config" VALUES(4,'solver.restart',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(4,'solver.ridge',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(4,'solver.window',10.0,'10','num');
INSERT INTO "run_config" VALUES(4,'threads',1.0,'1','num');
INSERT INTO "run_config" VALUES(4,'train_steps',0.0,'0','num');
INSERT INTO "run_config" VALUES(5,'batch',4.0,'4','num');
INSERT INTO "run_config" VALUES(5,'data',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(5,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(5,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(5,'gradient.solver.name',NULL,'dense','str');
INSERT INTO "run_config" VALUES(5,'max_evaluations',100.0,'100','num');
INSERT INTO "run_config" VALUES(5,'model.name',NULL,'cosine','str');
INSERT INTO "run_config" VALUES(5,'reltol',NULL,'[0.001,1e-06]','json');
INSERT INTO "run_config" VALUES(5,'seed',236271089.0,'236271089','num');
INSERT INTO "run_config" VALUES(5,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(5,'solver.name',NULL,'picard','str');
INSERT INTO "run_config" VALUES(6,'a.b',NULL,'[1,{"$float":"inf"}]','json');
INSERT INTO "run_config" VALUES(6,'a.long',NULL,'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx','str');
INSERT INTO "run_config" VALUES(6,'a.text',NULL,'1e-3','str');
INSERT INTO "run_config" VALUES(6,'batch',4.0,'4','num');
INSERT INTO "run_config" VALUES(6,'data',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(6,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(6,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(6,'gradient.solver.name',NULL,'dense','str');
INSERT INTO "run_config" VALUES(6,'max_evaluations',100.0,'100','num');
INSERT INTO "run_config" VALUES(6,'model.name',NULL,'cosine','str');
INSERT INTO "run_config" VALUES(6,'reltol',NULL,'[0.001,1e-06]','json');
INSERT INTO "run_config" VALUES(6,'seed',7.0,'7','num');
INSERT INTO "run_config" VALUES(6,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(6,'solver.name',NULL,'picard','str');
INSERT INTO "run_config" VALUES(7,'batch',4.0,'4','num');
INSERT INTO "run_config" VALUES(7,'data',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(7,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(7,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(7,'gradient.solver.name',NULL,'dense','str');
INSERT INTO "run_config" VALUES(7,'max_evaluations',100.0,'100','num');
INSERT INTO "run_config" VALUES(7,'model.name',NULL,'cosine','str');
INSERT INTO "run_config" VALUES(7,'reltol',NULL,'[0.001,1e-06]','json');
INSERT INTO "run_config" VALUES(7,'seed',347712783.0,'347712783','num');
INSERT INTO "run_config" VALUES(7,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(7,'solver.name',NULL,'picard','str');
INSERT INTO "run_config" VALUES(8,'batch',4.0,'4','num');
INSERT INTO "run_config" VALUES(8,'data',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(8,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(8,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(8,'gradient.solver.name',NULL,'dense','str');
INSERT INTO "run_config" VALUES(8,'max_evaluations',100.0,'100','num');
INSERT INTO "run_config" VALUES(8,'model.name',NULL,'cosine','str');
INSERT INTO "run_config" VALUES(8,'reltol',NULL,'[0.001,1e-06]','json');
INSERT INTO "run_config" VALUES(8,'seed',0.0,'0','num');
INSERT INTO "run_config" VALUES(8,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(8,'solver.name',NULL,'picard','str');
INSERT INTO "run_config" VALUES(9,'batch',4.0,'4','num');
INSERT INTO "run_config" VALUES(9,'data',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(9,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(9,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(9,'gradient.solver.name',NULL,'dense','str');
INSERT INTO "run_config" VALUES(9,'max_evaluations',100.0,'100','num');
INSERT INTO "run_config" VALUES(9,'model.name',NULL,'cosine','str');
INSERT INTO "run_config" VALUES(9,'reltol',NULL,'[0.001,1e-06]','json');
INSERT INTO "run_config" VALUES(9,'seed',1.0,'1','num');
INSERT INTO "run_config" VALUES(9,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(9,'solver.name',NULL,'picard','str');
INSERT INTO "run_config" VALUES(10,'batch',4.0,'4','num');
INSERT INTO "run_config" VALUES(10,'data',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(10,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(10,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(10,'gradient.solver.name',NULL,'dense','str');
INSERT INTO "run_config" VALUES(10,'max_evaluations',100.0,'100','num');
INSERT INTO "run_config" VALUES(10,'model.name',NULL,'cosine','str');
INSERT INTO "run_config" VALUES(10,'reltol',NULL,'[0.001,1e-06]','json');
INSERT INTO "run_config" VALUES(10,'seed',0.0,'0','num');
INSERT INTO "run_config" VALUES(10,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(10,'solver.name',NULL,'newton','str');
INSERT INTO "run_config" VALUES(11,'batch',4.0,'4','num');
INSERT INTO "run_config" VALUES(11,'data',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(11,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(11,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(11,'gradient.solver.name',NULL,'dense','str');
INSERT INTO "run_config" VALUES(11,'max_evaluations',100.0,'100','num');
INSERT INTO "run_config" VALUES(11,'model.name',NULL,'cosine','str');
INSERT INTO "run_config" VALUES(11,'reltol',NULL,'[0.001,1e-06]','json');
INSERT INTO "run_config" VALUES(11,'seed',906691060.0,'906691060','num');
INSERT INTO "run_config" VALUES(11,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(11,'solver.name',NULL,'picard','str');
INSERT INTO "run_config" VALUES(12,'batch',4.0,'4','num');
INSERT INTO "run_config" VALUES(12,'data',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(12,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(12,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(12,'gradient.solver.name',NULL,'dense','str');
INSERT INTO "run_config" VALUES(12,'max_evaluations',100.0,'100','num');
INSERT INTO "run_config" VALUES(12,'model.name',NULL,'cosine','str');
INSERT INTO "run_config" VALUES(12,'reltol',NULL,'[0.001,1e-06]','json');
INSERT INTO "run_config" VALUES(12,'seed',745254916.0,'745254916','num');
INSERT INTO "run_config" VALUES(12,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(12,'solver.name',NULL,'picard','str');
INSERT INTO "run_config" VALUES(13,'batch',4.0,'4','num');
INSERT INTO "run_config" VALUES(13,'data',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(13,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(13,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(13,'gradient.solver.name',NULL,'dense','str');
INSERT INTO "run_config" VALUES(13,'max_evaluations',100.0,'100','num');
INSERT INTO "run_config" VALUES(13,'model.name',NULL,'cosine','str');
INSERT INTO "run_config" VALUES(13,'reltol',NULL,'[0.001,1e-06]','json');
INSERT INTO "run_config" VALUES(13,'seed',384227881.0,'384227881','num');
INSERT INTO "run_config" VALUES(13,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(13,'solver.name',NULL,'picard','str');
INSERT INTO "run_config" VALUES(14,'batch',4.0,'4','num');
INSERT INTO "run_config" VALUES(14,'data',NULL,NULL,'null');
INSERT INTO "run_config" VALUES(14,'fixed_budget',NULL,'false','bool');
INSERT INTO "run_config" VALUES(14,'gradient.name',NULL,'implicit','str');
INSERT INTO "run_config" VALUES(14,'gradient.solver.name',NULL,'dense','str');
INSERT INTO "run_config" VALUES(14,'max_evaluations',100.0,'100','num');
INSERT INTO "run_config" VALUES(14,'model.name',NULL,'cosine','str');
INSERT INTO "run_config" VALUES(14,'reltol',NULL,'[0.001,1e-06]','json');
INSERT INTO "run_config" VALUES(14,'seed',17830550.0,'17830550','num');
INSERT INTO "run_config" VALUES(14,'solver.mixing',1.0,'1.0','num');
INSERT INTO "run_config" VALUES(14,'solver.name',NULL,'picard','str');
CREATE TABLE run_output (
	run_id INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	text TEXT NOT NULL, 
	CONSTRAINT pk_run_output PRIMARY KEY (run_id, seq), 
	CONSTRAINT fk_run_output_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
INSERT INTO "run_output" VALUES(5,0,'printed: ☃ '' " \ %s :x
	and more
');
CREATE TABLE schema_version (
	version INTEGER NOT NULL, 
	created_at TEXT NOT NULL, 
	CONSTRAINT pk_schema_version PRIMARY KEY (version)
);
INSERT INTO "schema_version" VALUES(1,'2026-11-24T13:46:19.589043Z');
CREATE TABLE series (
	id INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	CONSTRAINT pk_series PRIMARY KEY (id), 
	CONSTRAINT uq_series_run_id_name UNIQUE (run_id, name), 
	CONSTRAINT fk_series_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
INSERT INTO "series" VALUES(1,5,'odd');
INSERT INTO "series" VALUES(2,5,'loss');
INSERT INTO "series" VALUES(3,5,'never finite');
INSERT INTO "series" VALUES(4,5,'a text');
INSERT INTO "series" VALUES(5,7,'loss');
INSERT INTO "series" VALUES(6,14,'loss');
CREATE TABLE solve (
	id INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	ord INTEGER NOT NULL, 
	outer_step INTEGER, 
	phase TEXT, 
	site TEXT, 
	problem TEXT, 
	solver TEXT, 
	options JSON, 
	iterations INTEGER, 
	evaluations INTEGER, 
	sample_evaluations INTEGER, 
	jvps INTEGER, 
	vjps INTEGER, 
	syncs INTEGER, 
	history_bytes INTEGER, 
	retcode TEXT, 
	retcodes JSON, 
	converged DOUBLE, 
	message TEXT, 
	residual_first DOUBLE, 
	residual_last DOUBLE, 
	residual_min DOUBLE, 
	residual_relative DOUBLE, 
	seconds DOUBLE, 
	seconds_q1 DOUBLE, 
	seconds_q3 DOUBLE, 
	repeats INTEGER, 
	abstol DOUBLE, 
	reltol DOUBLE, 
	norm TEXT, 
	max_evaluations INTEGER, 
	fixed_budget SMALLINT, 
	dtype TEXT, 
	device TEXT, 
	batch INTEGER, 
	dim INTEGER, 
	extra JSON, 
	CONSTRAINT pk_solve PRIMARY KEY (id), 
	CONSTRAINT uq_solve_run_id_ord UNIQUE (run_id, ord), 
	CONSTRAINT ck_solve_phase CHECK (phase IN ('forward', 'adjoint', 'tangent')), 
	CONSTRAINT ck_solve_converged CHECK (converged BETWEEN 0 AND 1), 
	CONSTRAINT ck_solve_fixed_budget CHECK (fixed_budget IN (0, 1)), 
	CONSTRAINT fk_solve_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE, 
	CONSTRAINT ck_solve_iterations_count CHECK (iterations >= 0), 
	CONSTRAINT ck_solve_evaluations_count CHECK (evaluations >= 0), 
	CONSTRAINT ck_solve_sample_evaluations_count CHECK (sample_evaluations >= 0), 
	CONSTRAINT ck_solve_jvps_count CHECK (jvps >= 0), 
	CONSTRAINT ck_solve_vjps_count CHECK (vjps >= 0), 
	CONSTRAINT ck_solve_syncs_count CHECK (syncs >= 0), 
	CONSTRAINT ck_solve_history_bytes_count CHECK (history_bytes >= 0), 
	CONSTRAINT ck_solve_converged_finite CHECK (abs(converged) <= 1.7976931348623157e308), 
	CONSTRAINT ck_solve_residual_first_finite CHECK (abs(residual_first) <= 1.7976931348623157e308), 
	CONSTRAINT ck_solve_residual_last_finite CHECK (abs(residual_last) <= 1.7976931348623157e308), 
	CONSTRAINT ck_solve_residual_min_finite CHECK (abs(residual_min) <= 1.7976931348623157e308), 
	CONSTRAINT ck_solve_residual_relative_finite CHECK (abs(residual_relative) <= 1.7976931348623157e308), 
	CONSTRAINT ck_solve_seconds_finite CHECK (abs(seconds) <= 1.7976931348623157e308), 
	CONSTRAINT ck_solve_seconds_q1_finite CHECK (abs(seconds_q1) <= 1.7976931348623157e308), 
	CONSTRAINT ck_solve_seconds_q3_finite CHECK (abs(seconds_q3) <= 1.7976931348623157e308), 
	CONSTRAINT ck_solve_repeats_count CHECK (repeats >= 0), 
	CONSTRAINT ck_solve_abstol_finite CHECK (abs(abstol) <= 1.7976931348623157e308), 
	CONSTRAINT ck_solve_reltol_finite CHECK (abs(reltol) <= 1.7976931348623157e308), 
	CONSTRAINT ck_solve_batch_count CHECK (batch >= 0), 
	CONSTRAINT ck_solve_dim_count CHECK (dim >= 0)
);
INSERT INTO "solve" VALUES(1,1,0,0,'forward','','mlp','broyden','{"kind":"good","line_search":false,"reduction":"svd","window":null}',6,7,14,0,0,7,2696,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.24253034591674804687e+00,8.32534767687320709228e-03,8.32534767687320709228e-03,4.89608421139046696285e-03,3.52880100035690702497e-03,3.52880100035690702497e-03,3.52880100035690702497e-03,1,0.0,0.01,'l2',50,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(2,1,1,0,'adjoint','','','gmres','{"restart":null}',5,1,2,0,6,8,640,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.83659389615058898925e-01,2.83166556619107723236e-03,2.83166556619107723236e-03,9.71224380315659739648e-03,4.68672100032563321292e-03,4.68672100032563321292e-03,4.68672100032563321292e-03,1,0.0,0.01,'l2',100,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(3,1,2,1,'forward','','mlp','broyden','{"kind":"good","line_search":false,"reduction":"svd","window":null}',10,11,22,0,0,11,9480,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.24253034591674804687e+00,1.28158926600008271634e-05,1.28158926600008271634e-05,7.86127861469971120269e-06,4.90057899878593161702e-03,4.90057899878593161702e-03,4.90057899878593161702e-03,1,0.0,1.0e-05,'l2',50,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(4,1,3,1,'adjoint','','','gmres','{"restart":null}',8,1,2,0,9,11,640,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.83342695236206054687e-01,1.35684246060918667353e-08,1.35684246060918667353e-08,4.65194113878396343312e-08,5.17491699793026782572e-03,5.17491699793026782572e-03,5.17491699793026782572e-03,1,0.0,1.0e-05,'l2',100,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(5,2,0,0,'forward','','mlp','broyden','{"kind":"good","line_search":false,"reduction":"svd","window":null}',6,7,14,0,0,7,1640,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.24253034591674804687e+00,8.32534767687320709228e-03,8.32534767687320709228e-03,4.89608421139046696285e-03,5.30052300018724054098e-03,5.30052300018724054098e-03,5.30052300018724054098e-03,1,0.0,0.01,'l2',50,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(6,2,1,1,'forward','','mlp','broyden','{"kind":"good","line_search":false,"reduction":"svd","window":null}',10,11,22,0,0,11,4008,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.24253034591674804687e+00,1.28158926600008271634e-05,1.28158926600008271634e-05,7.86127861469971120269e-06,9.2130939992784988135e-03,9.2130939992784988135e-03,9.2130939992784988135e-03,1,0.0,1.0e-05,'l2',50,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(7,3,0,0,'forward','','mlp','anderson','{"filter":0.0,"kind":"II","mixing":1.0,"restart":null,"ridge":null,"window":10}',6,7,14,0,0,7,2424,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.24253034591674804687e+00,8.7758321315050125122e-03,8.7758321315050125122e-03,5.16059520611602314671e-03,2.61265000153798609972e-03,2.61265000153798609972e-03,2.61265000153798609972e-03,1,0.0,0.01,'l2',50,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(8,3,1,0,'adjoint','','','gmres','{"restart":null}',5,1,2,0,6,8,640,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.83736488223075866699e-01,2.8325445018708705902e-03,2.8325445018708705902e-03,9.71781031796537485278e-03,4.38380199921084567904e-03,4.38380199921084567904e-03,4.38380199921084567904e-03,1,0.0,0.01,'l2',100,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(9,3,2,1,'forward','','mlp','anderson','{"filter":0.0,"kind":"II","mixing":1.0,"restart":null,"ridge":null,"window":10}',10,11,22,0,0,11,3320,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.24253034591674804687e+00,1.10427254185196943581e-05,1.10427254185196943581e-05,7.21295772292108053336e-06,4.0511480001441668719e-03,4.0511480001441668719e-03,4.0511480001441668719e-03,1,0.0,1.0e-05,'l2',50,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(10,3,3,1,'adjoint','','','gmres','{"restart":null}',8,1,2,0,9,11,640,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.83342367410659790039e-01,3.10807628522979939589e-08,3.10807628522979939589e-08,1.06560495907138674776e-07,4.64574000216089189052e-03,4.64574000216089189052e-03,4.64574000216089189052e-03,1,0.0,1.0e-05,'l2',100,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(11,4,0,0,'forward','','mlp','anderson','{"filter":0.0,"kind":"II","mixing":1.0,"restart":null,"ridge":null,"window":10}',6,7,14,0,0,7,1368,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.24253034591674804687e+00,0.0087758032605052,0.0087758032605052,5.16057822863274888447e-03,2.87573100285953842103e-03,2.87573100285953842103e-03,2.87573100285953842103e-03,1,0.0,0.01,'l2',50,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(12,4,1,1,'forward','','mlp','anderson','{"filter":0.0,"kind":"II","mixing":1.0,"restart":null,"ridge":null,"window":10}',10,11,22,0,0,11,2872,'SUCCESS','{"SUCCESS":2}',1.0,'SUCCESS: the residual at the returned point meets the tolerance',1.24253034591674804687e+00,1.11160761662176810204e-05,1.11160761662176810204e-05,7.26086943149285372455e-06,5.47520300096948631107e-03,5.47520300096948631107e-03,5.47520300096948631107e-03,1,0.0,1.0e-05,'l2',50,0,'float32','cpu',2,8,NULL);
INSERT INTO "solve" VALUES(13,6,0,NULL,'forward','layer.0',NULL,'broyden','{"window":5}',NULL,4,NULL,NULL,NULL,NULL,NULL,'NONFINITE','{"NONFINITE":1,"SUCCESS":1}',0.5,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.0e-06,NULL,NULL,1,NULL,NULL,NULL,NULL,'{"attempts":["a","b"],"nonfinite":{"residual_last":"nan"}}');
INSERT INTO "solve" VALUES(14,6,1,NULL,'adjoint','',NULL,'gmres',NULL,NULL,NULL,NULL,NULL,7,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "solve" VALUES(15,6,2,NULL,'tangent','',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "solve" VALUES(16,8,0,0,'forward','','cosine','picard','{"mixing":1.0,"name":"picard"}',8,9,NULL,NULL,NULL,NULL,NULL,'SUCCESS','{"SUCCESS":4}',1.0,'converged',1.13696168732145430624e+00,5.02675793256801561881e-04,5.02675793256801561881e-04,4.42122015950287294318e-04,4.09510030294768512248e-05,NULL,NULL,NULL,NULL,0.001,NULL,100,0,'float64',NULL,4,1,NULL);
INSERT INTO "solve" VALUES(17,8,1,1,'forward','','cosine','picard','{"mixing":1.0,"name":"picard"}',15,16,NULL,NULL,NULL,NULL,NULL,'SUCCESS','{"SUCCESS":4}',1.0,'converged',1.13696168732145430624e+00,8.53693342905970098399e-07,8.53693342905970098399e-07,7.50854978163045618921e-07,1.6738900012569501996e-04,NULL,NULL,NULL,NULL,1.0e-06,NULL,100,0,'float64',NULL,4,1,NULL);
INSERT INTO "solve" VALUES(18,9,0,0,'forward','','cosine','picard','{"mixing":1.0,"name":"picard"}',9,10,NULL,NULL,NULL,NULL,NULL,'SUCCESS','{"SUCCESS":4}',1.0,'converged',1.45046369632593519227e+00,8.4320412320315618615e-04,8.4320412320315618615e-04,5.81334179779208312828e-04,4.49559993285220116376e-05,NULL,NULL,NULL,NULL,0.001,NULL,100,0,'float64',NULL,4,1,NULL);
INSERT INTO "solve" VALUES(19,9,1,1,'forward','','cosine','picard','{"mixing":1.0,"name":"picard"}',18,19,NULL,NULL,NULL,NULL,NULL,'SUCCESS','{"SUCCESS":4}',1.0,'converged',1.45046369632593519227e+00,7.33732954616428401095e-07,7.33732954616428401095e-07,5.05860957757849624564e-07,1.11195000499719753861e-04,NULL,NULL,NULL,NULL,1.0e-06,NULL,100,0,'float64',NULL,4,1,NULL);
INSERT INTO "solve" VALUES(20,10,0,0,'forward','','cosine','newton','{"mixing":1.0,"name":"newton"}',3,4,NULL,NULL,NULL,NULL,NULL,'SUCCESS','{"SUCCESS":4}',1.0,'converged',1.13696168732145430624e+00,1.70626683471120088597e-06,1.70626683471120088597e-06,1.50072500572201454182e-06,2.59190019278321415185e-05,NULL,NULL,NULL,NULL,0.001,NULL,100,0,'float64',NULL,4,1,NULL);
INSERT INTO "solve" VALUES(21,10,1,1,'forward','','cosine','newton','{"mixing":1.0,"name":"newton"}',4,5,NULL,NULL,NULL,NULL,NULL,'SUCCESS','{"SUCCESS":4}',1.0,'converged',1.13696168732145430624e+00,2.20046203480706026311e-13,2.20046203480706026311e-13,1.9353880252474343555e-13,5.25479990756139159202e-05,NULL,NULL,NULL,NULL,1.0e-06,NULL,100,0,'float64',NULL,4,1,NULL);
CREATE TABLE solve_trace (
	solve_id INTEGER NOT NULL, 
	"column" TEXT NOT NULL, 
	n INTEGER NOT NULL, 
	codec TEXT NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_solve_trace PRIMARY KEY (solve_id, "column"), 
	CONSTRAINT ck_solve_trace_column CHECK ("column" IN ('evaluations', 'seconds', 'residual', 'active')), 
	CONSTRAINT fk_solve_trace_solve_id_solve FOREIGN KEY(solve_id) REFERENCES solve (id) ON DELETE CASCADE, 
	CONSTRAINT ck_solve_trace_n_count CHECK (n >= 0)
);
INSERT INTO "solve_trace" VALUES(1,'evaluations',7,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B48C03005FE70310');
INSERT INTO "solve_trace" VALUES(1,'seconds',7,'float64 little-endian, zlib',X'7801636060F039DE646CCFC0C06012B9CC0D445BDBF9068168B917BEE1603ADA24064837A84C999C00A26B67FE4FB2070054E00DE8');
INSERT INTO "solve_trace" VALUES(1,'residual',7,'float64 little-endian, zlib',X'780163606068487FF8D99E8181E1C0B58297209A61B9DA0310FDE0C6BCCB20BA21F7E609306D766436887678C8D3680F0016CF128B');
INSERT INTO "solve_trace" VALUES(1,'active',7,'float64 little-endian, zlib',X'7801636000030708C5402CCD00002BB80181');
INSERT INTO "solve_trace" VALUES(2,'evaluations',5,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282DE20000367F025C');
INSERT INTO "solve_trace" VALUES(2,'seconds',5,'float64 little-endian, zlib',X'780163606048314BB1B36700D37E20FAB4C6E930283F0E4837FC5BF82FC91E00AB6B0AB3');
INSERT INTO "solve_trace" VALUES(2,'residual',5,'float64 little-endian, zlib',X'780163606058A0D674DC9E8181E18049E82E10BD60FE8EF9205AE1D4926E100D0600DEBF09BE');
INSERT INTO "solve_trace" VALUES(2,'active',5,'float64 little-endian, zlib',X'7801636000030708C5808B66000015280101');
INSERT INTO "solve_trace" VALUES(3,'evaluations',11,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B40C945680D24A505A054AAB390000D63F049C');
INSERT INTO "solve_trace" VALUES(3,'seconds',11,'float64 little-endian, zlib',X'780163606010F8276A6ECFC0C0C0E1F1D30F44D79EFA120AA299AF5C8C02D1616C2DF120DA588C2D09445F3A119702A41B7C366D4A03D1E7A77DCA00D18EF3CAB241F2DD6F36E4DA0300DBB9192E');
INSERT INTO "solve_trace" VALUES(3,'residual',11,'float64 little-endian, zlib',X'780163606068487FF8D99E8181E1C0B58297209A61B9DA0310FDE0C6BCCB20BA21F7E609306D766436887678C8D308A213C2DF8581F9BE6BAC41F4038703D260BAEAC12B3B00E9EA1C14');
INSERT INTO "solve_trace" VALUES(3,'active',11,'float64 little-endian, zlib',X'7801636000030708C5402D9A010070D80281');
INSERT INTO "solve_trace" VALUES(4,'evaluations',8,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B40C945670000078E70370');
INSERT INTO "solve_trace" VALUES(4,'seconds',8,'float64 little-endian, zlib',X'780163606878FDEE8A853D0398F600D20B0C36CF0F82F2238074C2322DAE78A878129016E00BDC950A95CFB0070024FF180C');
INSERT INTO "solve_trace" VALUES(4,'residual',8,'float64 little-endian, zlib',X'78016360606038567EDC1E48350846EF02D10952FBE783E803518DDD60712DC97410ED60516507A2158A5F8B8068300000E9A00D4E');
INSERT INTO "solve_trace" VALUES(4,'active',8,'float64 little-endian, zlib',X'7801636000030708C5402ACD00003A0001C1');
INSERT INTO "solve_trace" VALUES(5,'evaluations',7,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B48C03005FE70310');
INSERT INTO "solve_trace" VALUES(5,'seconds',7,'float64 little-endian, zlib',X'780163606048316933B1676060E0E14AF705D1AB7F9F8A02D20D778FA92783E82C65930C90F80C87F25C10EDBDBEADD01E007D020EA3');
INSERT INTO "solve_trace" VALUES(5,'residual',7,'float64 little-endian, zlib',X'780163606068487FF8D99E8181E1C0B58297209A61B9DA0310FDE0C6BCCB20BA21F7E609306D766436887678C8D3680F0016CF128B');
INSERT INTO "solve_trace" VALUES(5,'active',7,'float64 little-endian, zlib',X'7801636000030708C5402CCD00002BB80181');
INSERT INTO "solve_trace" VALUES(6,'evaluations',11,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B40C945680D24A505A054AAB390000D63F049C');
INSERT INTO "solve_trace" VALUES(6,'seconds',11,'float64 little-endian, zlib',X'7801636060B0F132B7B767606058DAB03404446B6DAE4E04D20D1BECCCD3417CABDE473920FEF90AAD42107DD26162319076707EEA5C06A40F04ECDB530512DFF770712D882FF0C6BCC11E002AF31B70');
INSERT INTO "solve_trace" VALUES(6,'residual',11,'float64 little-endian, zlib',X'780163606068487FF8D99E8181E1C0B58297209A61B9DA0310FDE0C6BCCB20BA21F7E609306D766436887678C8D308A213C2DF8581F9BE6BAC41F4038703D260BAEAC12B3B00E9EA1C14');
INSERT INTO "solve_trace" VALUES(6,'active',11,'float64 little-endian, zlib',X'7801636000030708C5402D9A010070D80281');
INSERT INTO "solve_trace" VALUES(7,'evaluations',7,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B48C03005FE70310');
INSERT INTO "solve_trace" VALUES(7,'seconds',7,'float64 little-endian, zlib',X'7801636060D8F0E588963D030383CCB7066B10BD2BF69717888E333C1008A257975C0805D14F7A8E4582E87F3BB6C5DA0300D4C111B0');
INSERT INTO "solve_trace" VALUES(7,'residual',7,'float64 little-endian, zlib',X'780163606068487FF8D99E8181E1C0B58297203AA189E501985E7DF81C887660653A02E6CFD45B00E60BFC6CB40700E9691062');
INSERT INTO "solve_trace" VALUES(7,'active',7,'float64 little-endian, zlib',X'7801636000030708C5402CCD00002BB80181');
INSERT INTO "solve_trace" VALUES(8,'evaluations',5,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282DE20000367F025C');
INSERT INTO "solve_trace" VALUES(8,'seconds',5,'float64 little-endian, zlib',X'7801636060F8F368B7AD3D0398F605D1B6AF7CC2A0FC5820DD7037776A923D001D600E78');
INSERT INTO "solve_trace" VALUES(8,'residual',5,'float64 little-endian, zlib',X'78016360604858DB72DC9E81814121336C17885E60B26F3E884E78BBA21B44830100D9AE099F');
INSERT INTO "solve_trace" VALUES(8,'active',5,'float64 little-endian, zlib',X'7801636000030708C5808B66000015280101');
INSERT INTO "solve_trace" VALUES(9,'evaluations',11,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B40C945680D24A505A054AAB390000D63F049C');
INSERT INTO "solve_trace" VALUES(9,'seconds',11,'float64 little-endian, zlib',X'780163606058F247CDC89E8181E197668B2388CE0B3AE30FA2157E6B878068AF3B061120FAFF86693140BA417C4A6802885E1BE69204A257E5E8A780E4EB143EA482E817E5A119F6001778189B');
INSERT INTO "solve_trace" VALUES(9,'residual',11,'float64 little-endian, zlib',X'780163606068487FF8D99E8181E1C0B58297203AA189E501985E7DF81C887660653A02E6CFD45B00E60BFC6C04D3866D31207A01CF0E53107D604AB50098DFA2F1DC0E006438185B');
INSERT INTO "solve_trace" VALUES(9,'active',11,'float64 little-endian, zlib',X'7801636000030708C5402D9A010070D80281');
INSERT INTO "solve_trace" VALUES(10,'evaluations',8,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B40C945670000078E70370');
INSERT INTO "solve_trace" VALUES(10,'seconds',8,'float64 little-endian, zlib',X'7801636060786CA96C66CF00A6DD80B44356F6AC00283F0C481F88E658130D154F00D20B965D8A4B86CAA7D90300003D113E');
INSERT INTO "solve_trace" VALUES(10,'residual',8,'float64 little-endian, zlib',X'780163606070385C7EDC9E8181618168F42E109D20BB7F3E8876086AEC06D1076425D34134835A951D583CF7B508980F120300ED040D25');
INSERT INTO "solve_trace" VALUES(10,'active',8,'float64 little-endian, zlib',X'7801636000030708C5402ACD00003A0001C1');
INSERT INTO "solve_trace" VALUES(11,'evaluations',7,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B48C03005FE70310');
INSERT INTO "solve_trace" VALUES(11,'seconds',7,'float64 little-endian, zlib',X'78016360603078C3AB6ECFC0C050B156C40A4447CDBEE505A25366F28582686626B568102DEBD49100A41B72A61426DB0300410A0C17');
INSERT INTO "solve_trace" VALUES(11,'residual',7,'float64 little-endian, zlib',X'780163606068487FF8D99E8181E1C0B58297203AA189E501985E7DF81C589C95E908887EB0406F01589CE767A33D00FB4D1185');
INSERT INTO "solve_trace" VALUES(11,'active',7,'float64 little-endian, zlib',X'7801636000030708C5402CCD00002BB80181');
INSERT INTO "solve_trace" VALUES(12,'evaluations',11,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B40C945680D24A505A054AAB390000D63F049C');
INSERT INTO "solve_trace" VALUES(12,'seconds',11,'float64 little-endian, zlib',X'7801636060F8D3E16662CFC0C0F0CA6D9D0B882E09F10F05D1BF6ABE4703E986B533651241F42703D11410DD74583D1D24EFFF737D16885FF5747D2E885F31DDAA10C46F71BF59640F0082E01B67');
INSERT INTO "solve_trace" VALUES(12,'residual',11,'float64 little-endian, zlib',X'780163606068487FF8D99E8181E1C0B58297203AA189E501985E7DF81C589C95E908887EB0406F01589CE7672398966E8B01D10DECDB4CC1FCEF150220FAC153FFE776009B661A29');
INSERT INTO "solve_trace" VALUES(12,'active',11,'float64 little-endian, zlib',X'7801636000030708C5402D9A010070D80281');
INSERT INTO "solve_trace" VALUES(13,'evaluations',4,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901070025D70208');
INSERT INTO "solve_trace" VALUES(13,'residual',4,'float64 little-endian, zlib',X'7801636000810FF6B36682C04E7B3097E1433D84FE510F008D4F08A5');
INSERT INTO "solve_trace" VALUES(13,'seconds',4,'float64 little-endian, zlib',X'78016360808059334160A73D843E696F0C0697ED01A1840B73');
INSERT INTO "solve_trace" VALUES(13,'active',4,'float64 little-endian, zlib',X'7801636000030708C500A53FD843F90C00163701B0');
INSERT INTO "solve_trace" VALUES(16,'evaluations',9,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B40C945680D24A0E0094EB03D2');
INSERT INTO "solve_trace" VALUES(16,'seconds',9,'float64 little-endian, zlib',X'780163606060C84FBD6407A41A8EA43D05D10CF7A5DE83F94B7CBE80E9533F7E80E8038F4BFE82E807DFDE31D803E9864E6D66107D20B282D51E002A021692');
INSERT INTO "solve_trace" VALUES(16,'residual',9,'float64 little-endian, zlib',X'7801014800B7FF289CFDBCFE30F23FDC359244778CD23F100393158DF2BE3F6000BC664F5FA83F40E6D133A2BD933F00F3C85772A67F3F00F00F913D7B693F004A571EE57A543F00FCD70BC078403FEA20209F');
INSERT INTO "solve_trace" VALUES(16,'active',9,'float64 little-endian, zlib',X'78016360000101073045010D005DA802D1');
INSERT INTO "solve_trace" VALUES(17,'evaluations',16,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B40C945680D24A505A054AAB41690D28AD05A575A0B41E9436700000B2C606B8');
INSERT INTO "solve_trace" VALUES(17,'seconds',16,'float64 little-endian, zlib',X'7801636060F8A0E12161CFC0C0E0702A5C1A441F787645064407FCD69303D10C4DE9F2209AE3AB9B02886E387A0D4C472CCD5204F167D4FC03D3019B262981F81E062ACA20FA43C866303D43CB5105C45FF1FD1C98563811A70AE24F58F241D51E00A0A31F6E');
INSERT INTO "solve_trace" VALUES(17,'residual',16,'float64 little-endian, zlib',X'7801D398F377CF3F834FF6774C27B994F75CB217609E2CDAFB699F7D02C39E34FFF815F60ECF2E1A2FDA3BD99EE1F389F0A265F5F60C1FF827DA5667DA337885CB3DAD0AB167F8739DFB4085833D4382FB62E65A2D7B0686C5716F7D44ED191CFE861C546004F2F9EE1CEF7E6DC7C0E0D658A1760D48CB08EF3F7F10482F68D65EBAC60E000A1B3389');
INSERT INTO "solve_trace" VALUES(17,'active',16,'float64 little-endian, zlib',X'78016360000101073035003400328F0501');
INSERT INTO "solve_trace" VALUES(18,'evaluations',10,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B40C945680D24A505AC50100B4030436');
INSERT INTO "solve_trace" VALUES(18,'seconds',10,'float64 little-endian, zlib',X'78016360606038F8FB921D9062B0AB790AA21BB699BE07F34FAB7D01F38DA7FE00D10EBE2E7F417402F30D067B207D60150F33989EEDC70AA2139E4C64B707006D9B1529');
INSERT INTO "solve_trace" VALUES(18,'residual',10,'float64 little-endian, zlib',X'7801015000AFFF2A15BC6B1935F73F040D43C29C28DC3F286AC9728054CA3F0025D708C594B73FE02D2365B4B4A53F40221CD4CAC4933F80A11E8D3819823F005C5C440388703F00DC189A5C3B5E3F007806114FA14B3F0A741E4F');
INSERT INTO "solve_trace" VALUES(18,'active',10,'float64 little-endian, zlib',X'78016360000101073045051A0074900321');
INSERT INTO "solve_trace" VALUES(19,'evaluations',19,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282D02A525A0B40C945680D24A505A054AAB41690D28AD05A575A0B41E943680D28650DA084A1B3B000060A1080E');
INSERT INTO "solve_trace" VALUES(19,'seconds',19,'float64 little-endian, zlib',X'780163606060C8F9FCC30E481D083ACE680FA41B14D95841F483AC1A7610ADC0F3801344277858F180E805B513F840F48467D90220DA61D9644110FD81799F108866507A2D0CA215C4B944C1FC361331107DE0528838883658D52501A21BFCD64882E8050C67A4407480EF1B69103D415B4DD61E00A7A21FCD');
INSERT INTO "solve_trace" VALUES(19,'residual',19,'float64 little-endian, zlib',X'7801D312DD932D69FADD9E85D7F9D01C8D3BF61A59278B1A424ED933A85EE7383A65BBFD035DE5D42D5B96DA3B28C95C397564B27DC342B95E0BC9267B86981817E68E027B863B12B362ACE3EC192AD804FD177ADB337C90BFC4EC6469CFC010F4C1494CDD9EA141724E9B942890DEBFCFD78B1928DEB49579D1473B068675369A720F80F48237EEE56781344393FAFB5D20FE95EDF356D80100C74036DA');
INSERT INTO "solve_trace" VALUES(19,'active',19,'float64 little-endian, zlib',X'78016360000101073035886800B34705F1');
INSERT INTO "solve_trace" VALUES(20,'evaluations',4,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901070025D70208');
INSERT INTO "solve_trace" VALUES(20,'seconds',4,'float64 little-endian, zlib',X'78016360606058947CCD0E4835D47E790DA21D844F7F01D353747FDB010091F509BE');
INSERT INTO "solve_trace" VALUES(20,'residual',4,'float64 little-endian, zlib',X'7801D398F377CF3F834FF6774C27B994F75CB2679821ABB3B1A1D89E81618265CC823D7600077C0E5B');
INSERT INTO "solve_trace" VALUES(20,'active',4,'float64 little-endian, zlib',X'7801636000010107308585060010A00141');
INSERT INTO "solve_trace" VALUES(21,'evaluations',5,'float64 little-endian, zlib',X'7801636000810FF6608A81C1014273406901282DE20000367F025C');
INSERT INTO "solve_trace" VALUES(21,'seconds',5,'float64 little-endian, zlib',X'7801636060683038F9DD8E8181C1C16E37A33D90669896C90AA21DD4677080E886FB3DDCF600B3D508E6');
INSERT INTO "solve_trace" VALUES(21,'residual',5,'float64 little-endian, zlib',X'7801D398F377CF3F834FF6774C27B994F75CB2679821ABB3B1A1D89E81618265CC823D760C20F0C3CF16007E150FDE');
INSERT INTO "solve_trace" VALUES(21,'active',5,'float64 little-endian, zlib',X'780163600001010730858706001B080191');
CREATE INDEX ix_run_trial ON run (trial);
CREATE INDEX ix_run_status ON run (status);
CREATE INDEX ix_run_study_experiment ON run (study, experiment);
CREATE INDEX ix_run_parent_id ON run (parent_id);
CREATE INDEX ix_run_config_hash ON run (config_hash);
CREATE INDEX ix_run_environment_id ON run (environment_id);
CREATE INDEX ix_run_experiment_started_at ON run (experiment, started_at);
CREATE INDEX ix_run_config_key_start ON run_config ("key", substr(txt, 1, 100));
CREATE INDEX ix_run_config_key_num ON run_config ("key", num);
CREATE INDEX ix_solve_run_id_phase_outer_step ON solve (run_id, phase, outer_step);
CREATE INDEX ix_grad_check_method ON grad_check (method);
CREATE INDEX ix_grad_check_adjoint_id ON grad_check (adjoint_id);
CREATE INDEX ix_grad_check_solve_id ON grad_check (solve_id);
CREATE INDEX ix_grad_check_run_id_outer_step ON grad_check (run_id, outer_step);
CREATE VIEW v_runs AS
SELECT
  r.id AS id,  -- integer: number of the run in this store
  r.uuid AS uuid,  -- text: identity of the run in any store
  r.experiment AS experiment,  -- text: name of the Sacred experiment
  r.study AS study,  -- text: study that the run belongs to; NULL for a single run
  r.trial AS trial,  -- text: sha256 of the trial's complete config; equal for attempts at the same trial
  r.status AS status,  -- text: RUNNING, COMPLETED, FAILED (an exception), INTERRUPTED, QUEUED, DIED (its process did), or the status of a custom interrupt
  r.started_at AS started_at,  -- time: start
  r.stopped_at AS stopped_at,  -- time: end; NULL while the run goes on, and for a killed one
  r.heartbeat_at AS heartbeat_at,  -- time: last sign of life
  r.seconds AS seconds,  -- number [s]: duration, until the last sign of life for a run without an end
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
  r.comment AS comment  -- text: comment given with the run
FROM run AS r
LEFT JOIN environment AS e ON e.id = r.environment_id;
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
JOIN v_runs AS r ON r.id = s.run_id;
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
LEFT JOIN solve AS a ON a.id = g.adjoint_id;
COMMIT;
