# The server and its command line, for docker-compose.yml.
FROM python:3.13-slim-bookworm AS build
COPY . /src
WORKDIR /src
RUN python -m venv /opt/kvblock \
 && /opt/kvblock/bin/pip install --no-cache-dir --constraint constraints.txt pip \
 && /opt/kvblock/bin/pip install --no-cache-dir --constraint constraints.txt \
      --build-constraint constraints.txt '.[server]'

FROM python:3.13-slim-bookworm
COPY --from=build /opt/kvblock /opt/kvblock
# The socket's folder belongs to the server's user, and so does a fresh volume mounted on it. The
# user's number is fixed, so that what is mounted can be given to it.
RUN groupadd --gid 10001 kvblock \
 && useradd --uid 10001 --gid kvblock --no-create-home --shell /usr/sbin/nologin kvblock \
 && install --directory --owner kvblock --group kvblock /run/kvblock
ENV PATH=/opt/kvblock/bin:$PATH
USER kvblock
ENTRYPOINT ["kvblock"]
CMD ["--help"]
