"""A Celery application that can ask workers whether they live, and starts nothing else."""

from celery import Celery
from dify_standin.settings import SETTINGS

celery = Celery(broker=SETTINGS.CELERY_BROKER_URL)
celery.conf.update(broker_transport_options=SETTINGS.transport_options)
