"""What every service of credspec needs: signals, events, notification, protection.

No process of its own: it runs in the agent, the gateway and the account provider.
"""
