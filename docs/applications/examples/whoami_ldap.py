"""Ask the directory who we are, over a sealed connection: whoami_ldap.py ldap://HOST."""

import sys

import bonsai

# The name asked for is the one to authenticate, whatever reverse DNS says of the address.
bonsai.set_connect_async(False)
client = bonsai.LDAPClient(sys.argv[1])
client.set_credentials("GSSAPI")
client.set_sasl_security_properties(min_ssf=56)
with client.connect() as connection:
    print(connection.whoami())
