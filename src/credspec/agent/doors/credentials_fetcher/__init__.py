"""credentials-fetcher's gRPC interface on top of credspec's leases, for those who switch from it.

In the agent's process. `service` is what each call does, `ticket_leases` its leases, `requests`
what it may ask and how it is refused, `lease_tree` the directories that it promises,
`lease_entries` the tickets in them, `connections` who may call, `aws` the calls with ARNs,
`accepted_specs` the documents that are taken, `call_status` the status of a refusal,
`answer_delivery` what becomes of a lease whose answer does not arrive, `reflection` what the
service says of itself, `server` all of it together.
`credentialsfetcher.proto` is the interface as published, and the modules with ``_pb2`` are
generated from it.
"""
