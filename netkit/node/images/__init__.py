"""The image catalogue: what an image name means when nothing is ever pulled."""
