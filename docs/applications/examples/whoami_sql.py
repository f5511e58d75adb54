"""Ask SQL Server who we are: whoami_sql.py HOST."""

import sys

import mssql_python

connection = mssql_python.connect(
    f"Server={sys.argv[1]};Trusted_Connection=yes;Encrypt=optional;TrustServerCertificate=yes"
)
print(connection.cursor().execute("SELECT SUSER_SNAME()").fetchone()[0])
connection.close()
