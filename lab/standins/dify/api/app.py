"""What gunicorn, Celery's beat and Flask's command line start from; the names are Dify's."""

from dify_standin.application import create_app

socketio_app, app, celery = create_app()
