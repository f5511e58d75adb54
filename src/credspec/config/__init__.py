"""The host's configuration file: its keys, and the policy in it.

No process of its own: it is read by services and commands. A new key is a field of `Config` in
`host`, of `Policy` in `policy`, or of a provider's own class in `credspec.providers`; its sentence
in the documents goes into `scripts/docs_reference/configuration_words.toml`.
"""
