"""What a Celery worker starts from."""

from gevent.monkey import is_module_patched

if is_module_patched("socket"):
    from dify_standin.patches import patch_psycopg

    patch_psycopg()

from dify_standin.application import create_app

_socketio_app, app, celery = create_app(celery_worker=True)
