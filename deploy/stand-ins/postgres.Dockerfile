# Stand-in for postgres:15, built by deploy/stand-ins.sh.
FROM debian:bookworm-slim
# postgresql-common would make a cluster of its own. Man pages are left out, but alternatives want their directories.
RUN mkdir -p /etc/postgresql-common /usr/share/man/man1 /usr/share/man/man7 \
 && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
 && groupadd --system --gid 999 postgres \
 && useradd --system --uid 999 --gid postgres --home-dir /var/lib/postgresql --shell /bin/bash postgres \
 && apt-get update \
 && apt-get install --yes --no-install-recommends postgresql-15 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old \
 && mkdir -p /docker-entrypoint-initdb.d /var/lib/postgresql/data \
 && chown postgres:postgres /var/lib/postgresql /var/lib/postgresql/data \
 && install -d -o postgres -g postgres -m 2777 /var/run/postgresql
COPY postgres-entrypoint.sh /usr/local/bin/postgres-entrypoint.sh
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 PG_MAJOR=15 PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["/usr/local/bin/postgres-entrypoint.sh"]
CMD ["postgres"]
