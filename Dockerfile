# One image for every service of the mesh; docker-compose.yml says which command each container runs.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/mesh
# The libraries come before the sources, so that a change of the sources does not fetch them again.
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; found = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(*found["dependencies"], *found["optional-dependencies"]["otel"], sep="\n")' > requirements.txt \
    && /opt/mesh/bin/pip install --no-cache-dir -c constraints.txt -r requirements.txt
# The image holds the compiled core; the compiler stays in this stage.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY README.md LICENSE topics.yaml ./
COPY mesh ./mesh
COPY agents ./agents
COPY scripts/compiled.py scripts/wheel_hook.py ./scripts/
# The same versions for the build as for the image: its environment is apart from that of the image.
RUN MESH_COMPILED=1 PIP_CONSTRAINT=/src/constraints.txt /opt/mesh/bin/pip install --no-cache-dir --no-deps . \
    && /opt/mesh/bin/pip check

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
