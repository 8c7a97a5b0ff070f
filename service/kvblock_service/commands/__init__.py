"""Commands of the command line that run where the service is installed."""
