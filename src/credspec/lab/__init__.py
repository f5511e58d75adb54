"""A throwaway real Active Directory domain, for demonstrations, tests and developers."""
