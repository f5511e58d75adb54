"""Active Directory: controllers, connections, accounts and managed passwords."""
