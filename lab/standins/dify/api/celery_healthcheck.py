"""A Celery application that can ask workers whether they live, and starts nothing else."""

from celery import Celery
from dify_standin.settings import SETTINGS
from dify_standin.tasks import transport_options

celery = Celery(broker=SETTINGS.CELERY_BROKER_URL)
celery.conf.update(broker_transport_options=transport_options())
