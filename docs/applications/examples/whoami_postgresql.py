"""Ask PostgreSQL who we are: /usr/bin/python3 whoami_postgresql.py HOST USER [gssencmode]."""

import sys

import psycopg

host, user, *rest = sys.argv[1:]
mode = rest[0] if rest else "require"
with psycopg.connect(host=host, user=user, dbname="demo", gssencmode=mode) as connection:
    print(connection.execute("select current_user").fetchone()[0])
    print(
        connection.execute(
            "select principal, encrypted from pg_stat_gssapi where pid = pg_backend_pid()"
        ).fetchone()
    )
