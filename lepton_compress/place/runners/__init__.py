"""Programs that are copied into a deployment and run there, without this package."""
