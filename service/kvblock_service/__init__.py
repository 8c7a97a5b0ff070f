"""The kvblock server: block pools, their host, and the gRPC service in front of them."""
