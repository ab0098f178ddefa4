FROM sovereign-dify-lab:standin-python
COPY site /usr/local/lib/python3.13/dist-packages
COPY bin /usr/local/bin
COPY --chown=1001:1001 api /app/api
COPY api/entrypoint.sh /entrypoint.sh
RUN useradd --system --uid 1001 --user-group --home-dir /app --shell /bin/bash dify && python3 -m compileall -q /usr/local/lib/python3.13/dist-packages /app/api
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1
WORKDIR /app/api
USER dify
EXPOSE 5001
ENTRYPOINT ["/bin/bash", "/entrypoint.sh"]
