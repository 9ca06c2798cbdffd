"""This collection, community.docker and plain docker, side by side on the test fleet."""
