FROM sovereign-dify-lab:standin-python
COPY site /usr/local/lib/python3.13/dist-packages
COPY plugin_daemon /app
COPY api/dify_standin/__init__.py api/dify_standin/patches.py /app/dify_standin/
RUN python3 -m compileall -q /usr/local/lib/python3.13/dist-packages /app
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1 PLUGIN_WORKING_PATH=/app/storage/cwd
WORKDIR /app
EXPOSE 5002
CMD ["python3", "/app/daemon.py"]
