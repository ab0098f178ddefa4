#!/bin/bash
# The modes of Dify's entrypoint, decided as it decides them. Among its traps: MODE=migration without MIGRATION_ENABLED=true starts an
# api, MIGRATION_ENABLED=true migrates in every mode, a skipped migration is no error, and arguments reach a job only.
set -e

queues=api_token,dataset,dataset_summary,priority_dataset,priority_pipeline,pipeline,mail,ops_trace,app_deletion,app_rbac,plugin,workflow_storage,conversation,workflow,schedule_poller,schedule_executor,triggered_workflow_dispatcher,trigger_refresh_publisher,trigger_refresh_executor,retention,workflow_based_app_execution

if [[ "$MIGRATION_ENABLED" == true ]]; then
  echo "Running migrations"
  flask upgrade-db
  if [[ "$MODE" == migration ]]; then
    echo "Migration completed, exiting normally"
    exit 0
  fi
fi

case "$MODE" in
  worker)
    if [[ "${CELERY_AUTO_SCALE,,}" == true ]]; then
      concurrency="--autoscale=${CELERY_MAX_WORKERS:-$(nproc)},${CELERY_MIN_WORKERS:-1}"
    else
      concurrency="-c ${CELERY_WORKER_AMOUNT:-1}"
    fi
    consumed="${CELERY_WORKER_QUEUES:-${CELERY_QUEUES:-$queues}}"
    if [[ -n "$CELERY_WORKER_CONCURRENCY" ]]; then concurrency="-c $CELERY_WORKER_CONCURRENCY"; fi
    echo "Starting Celery worker with queues: $consumed"
    # shellcheck disable=SC2086  (the option and its number are two words)
    exec celery -A celery_entrypoint.celery worker -P "${CELERY_WORKER_POOL:-${CELERY_WORKER_CLASS:-gevent}}" $concurrency \
      --max-tasks-per-child "${MAX_TASKS_PER_CHILD:-50}" --loglevel "${LOG_LEVEL:-INFO}" -Q "$consumed" \
      --prefetch-multiplier="${CELERY_PREFETCH_MULTIPLIER:-1}"
    ;;
  beat)
    exec celery -A app.celery beat --loglevel "${LOG_LEVEL:-INFO}"
    ;;
  job)
    if [[ $# -eq 0 ]]; then
      echo "Error: No command specified for job mode."
      exit 1
    fi
    echo "Running Flask job command: flask $*"
    exec flask "$@"
    ;;
  *)
    exec gunicorn --no-control-socket --bind "${DIFY_BIND_ADDRESS:-0.0.0.0}:${DIFY_PORT:-5001}" \
      --workers "${SERVER_WORKER_AMOUNT:-1}" \
      --worker-class "${SERVER_WORKER_CLASS:-geventwebsocket.gunicorn.workers.GeventWebSocketWorker}" \
      --worker-connections "${SERVER_WORKER_CONNECTIONS:-10}" --timeout "${GUNICORN_TIMEOUT:-200}" app:socketio_app
    ;;
esac
