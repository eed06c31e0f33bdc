"""Images over the workers of a Dask cluster: this machine's, one that runs, or jobs of a batch system."""
