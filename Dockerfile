# kvnet as an image: the controller by default, as an ordinary user; as root, with the capabilities that
# docker-compose.yml names, a host. Plain syntax: the classic builder and BuildKit both take it. Nothing secret is in it.
FROM python:3.11-slim AS build
# The classic builder leaves this stage behind: docker image prune --filter label=kvnet.stage=build
LABEL kvnet.stage=build
WORKDIR /src
COPY . .
RUN python -m venv /opt/kvnet \
 && /opt/kvnet/bin/pip install --no-cache-dir --disable-pip-version-check --quiet -c constraints.txt '.[all]' \
 && /opt/kvnet/bin/pip uninstall --disable-pip-version-check --yes --quiet setuptools pip \
 && install -D -m 755 -t /opt/kvnet/compose packaging/compose/*

FROM python:3.11-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends nftables iproute2 iputils-ping \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 7480 --create-home --home-dir /var/lib/kvnet kvnet
COPY --from=build /opt/kvnet /opt/kvnet
ENV PATH=/opt/kvnet/bin:/opt/kvnet/compose:$PATH PYTHONUNBUFFERED=1
USER kvnet
EXPOSE 7480
ENTRYPOINT ["kvnet"]
# Open to nobody: the first start makes an admin's token, in this file.
CMD ["controller", "--listen", "0.0.0.0:7480", "--bootstrap-token-file", "/var/lib/kvnet/admin-token"]
