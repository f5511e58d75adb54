"""Leases: a container's use of one or more identities, from its creation to its deletion.

In the agent's process, which is root. A request goes through, in this order:

* `claim`: the one place where a lease is refused; nothing has happened by then.
* `journal`, `record`: written before the lease has any effect.
* `delivery`: the one place where tickets are written; `content` is what, `directory` how.
* `audit`: the grant, before the answer.

A kind of lease (where its files are, whose they are, whether its container lives) is a class that
provides what `Home` and `Kind` in `home` say; those that exist are in `homes`. Later: `renewal`,
`ending`, `recovery` after a restart, and `sweep` of leases whose containers are gone.
"""
