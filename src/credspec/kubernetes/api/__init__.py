"""A small client of the API server, for the processes in the cluster; it is not one itself."""
