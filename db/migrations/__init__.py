"""The steps from every released schema to the next, run by ``db.upgrade``.

One file a version in ``versions/``, with Alembic's operations. A step is never changed once it is
released, and takes nothing from ``db.schema``, which goes on changing. A new one needs: the number
in ``schema.SCHEMA_VERSION``, the file here, and the filled stores of the version before
(``tests/db/stores/make.py``). Alembic's own table of versions is not used: ``schema_version`` is
the one truth.

On SQLite a step may make a table anew (``batch_alter_table``), which keeps what Alembic sees of it:
not the index ``ix_run_config_key_start``, which is over an expression, and no triggers.
"""
