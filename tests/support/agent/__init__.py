"""The agent as a process, its parts over a simulated domain, and a simulated agent."""
