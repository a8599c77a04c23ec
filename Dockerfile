# One image for every service of the mesh; docker-compose.yml says which command each container runs.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE topics.yaml ./
COPY mesh ./mesh
COPY agents ./agents
RUN python -m venv /opt/mesh && /opt/mesh/bin/pip install --no-cache-dir -c constraints.txt ".[otel]"

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 mesh
COPY --from=build /opt/mesh /opt/mesh
WORKDIR /home/mesh
COPY topics.yaml ./
COPY agents ./agents
ENV PATH=/opt/mesh/bin:$PATH PYTHONUNBUFFERED=1
USER mesh
ENTRYPOINT ["mesh"]
CMD ["--help"]
