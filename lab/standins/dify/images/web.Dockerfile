FROM sovereign-dify-lab:standin-python
COPY web /app
RUN useradd --system --uid 1001 --user-group --home-dir /app dify
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1
USER dify
EXPOSE 3000
CMD ["python3", "/app/server.py"]
