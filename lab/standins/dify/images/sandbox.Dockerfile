FROM sovereign-dify-lab:standin-python
COPY site/jinja2 /usr/local/lib/python3.13/dist-packages/jinja2
COPY site/markupsafe /usr/local/lib/python3.13/dist-packages/markupsafe
COPY sandbox /app
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1
EXPOSE 8194
CMD ["python3", "/app/server.py"]
