"""The topologies that come with the toolkit, and the JSON Schema of a topology file. Data only."""
