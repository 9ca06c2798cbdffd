"""Test hosts for the collection: containers with sshd and an Engine of their own each."""
