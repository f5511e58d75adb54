"""Log on to SQL Server with the container's ticket, and print the name it knows."""

import sys

from impacket.tds import MSSQL

server = sys.argv[1]
database = MSSQL(server, 1433, remoteName=server)
database.connect()
# User, realm and ticket are those of the cache that KRB5CCNAME names.
if not database.kerberosLogin(None, "", useCache=True):
    database.printReplies()
    sys.exit(1)
(row,) = database.sql_query("select suser_sname() as name")
print(row["name"])
