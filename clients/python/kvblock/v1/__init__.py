"""The wire contract: stubs that `make gen` makes of protos/kvblock/v1."""
