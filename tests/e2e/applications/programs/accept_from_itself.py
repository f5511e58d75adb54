"""Accept a logon of the container's own account, and say who it was and where replays are kept."""

from pathlib import Path

import gssapi

ACCOUNT = gssapi.Name("HTTP@web.example.test", gssapi.NameType.hostbased_service)
caller = gssapi.SecurityContext(name=ACCOUNT, usage="initiate")
acceptor = gssapi.SecurityContext(usage="accept")
acceptor.step(caller.step())
if not acceptor.complete:
    raise SystemExit("not accepted")
print(acceptor.initiator_name)
for cache in Path("/run/credspec/rcache").iterdir():
    print(cache.name)
