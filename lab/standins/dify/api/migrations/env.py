"""How Alembic reaches the database: by the settings, like everything else."""

from alembic import context
from dify_standin.database import make_engine

with make_engine(celery_worker=False).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
