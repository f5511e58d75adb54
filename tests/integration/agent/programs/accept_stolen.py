"""Logs on with a copied ticket, and accepts that as the service does, in one process.

``accept_stolen.py SERVICE``, with the copy in KRB5CCNAME and the service's keytab in KRB5_KTNAME.
"""

import sys

import gssapi

gssapi.SecurityContext.__DEFER_STEP_ERRORS__ = False
SERVICE = gssapi.Name(sys.argv[1], gssapi.NameType.hostbased_service)
caller = gssapi.SecurityContext(name=SERVICE, usage="initiate")
acceptor = gssapi.SecurityContext(creds=gssapi.Credentials(usage="accept"), usage="accept")
acceptor.step(caller.step())
print(acceptor.initiator_name)
