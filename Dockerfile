# Two images from one file: `web` (no torch) and `worker`. docker-compose.yml builds and connects them.

FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    ENVIRONMENT=production DATA_DIR=/data
RUN useradd --uid 10001 --create-home nanochatgpt && install -d -o nanochatgpt -g nanochatgpt -m 700 /data
WORKDIR /app
VOLUME /data

FROM base AS web
COPY requirements/web.txt requirements/
RUN pip install --require-hashes -r requirements/web.txt
COPY manage.py ./
COPY modelzoo/__init__.py modelzoo/config.py modelzoo/
COPY worker worker
COPY labeling labeling
COPY rlhf rlhf
COPY webapp webapp
# The values only have to be there: collecting files opens neither database nor broker.
RUN SECRET_KEY=used-while-this-image-is-built-and-never-after DATABASE_URL=sqlite:////tmp/none REDIS_URL=redis://none \
    ALLOWED_HOSTS=none python manage.py collectstatic --noinput
USER nanochatgpt
EXPOSE 8000
# Threads that live on keep their database connections; see docs/decisions/0006-gunicorn-threads.md.
ENV CONN_MAX_AGE=60
CMD ["gunicorn", "webapp.wsgi", "--bind", "0.0.0.0:8000", "--worker-class", "gthread", "--workers", "2", "--threads", "8", "--access-logfile", "-"]

FROM base AS worker
# Sampling on a CPU compiles modelzoo/native.cpp on first use; on a GPU it is not needed.
RUN apt-get update -q && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY requirements/worker.txt requirements/model.txt requirements/
RUN pip install --require-hashes -r requirements/worker.txt
# Not hashed: each platform has a build of its own. Another one: --build-arg TORCH="torch==2.13.0 --index-url ..."
ARG TORCH=torch==2.13.0
RUN pip install ${TORCH}
RUN pip install --no-deps --require-hashes -r requirements/model.txt
COPY manage.py ./
COPY modelzoo modelzoo
COPY worker worker
COPY labeling labeling
COPY rlhf rlhf
COPY webapp webapp
USER nanochatgpt
CMD ["celery", "-A", "worker.celery", "worker", "--loglevel", "INFO"]
