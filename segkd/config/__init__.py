"""Configuration: params.yaml and the studies as closed, typed models; resolving one run."""
