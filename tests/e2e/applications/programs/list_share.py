"""Lists a share by impacket, with what the container's cache has: ``list_share.py HOST SHARE``."""

import sys

from impacket.smbconnection import SMBConnection

host, share = sys.argv[1:]
connection = SMBConnection(host, host)
connection.kerberosLogin("", "", useCache=True)
print([each.get_longname() for each in connection.listPath(share, "*")])
