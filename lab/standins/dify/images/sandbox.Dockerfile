FROM sovereign-dify-lab:standin-python
COPY sandbox /app
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1
EXPOSE 8194
CMD ["python3", "/app/server.py"]
