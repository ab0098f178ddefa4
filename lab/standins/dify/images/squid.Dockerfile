FROM sovereign-dify-lab:standin-squid
COPY ssrf_proxy/entrypoint.sh /entrypoint.sh
EXPOSE 3128
ENTRYPOINT ["/bin/bash", "/entrypoint.sh"]
