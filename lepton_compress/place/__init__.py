"""Where models run: on the edge, in the cloud, in a cascade of both, or split between them."""
