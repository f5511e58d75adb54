"""Print whose ticket impacket finds in the cache that KRB5CCNAME names, and for which realm."""

import sys

from impacket.krb5.ccache import CCache

domain, user, ticket, _ = CCache.parseFile()
if ticket is None:
    sys.exit("no ticket-granting ticket in the cache")
print(f"{user}@{domain}")
