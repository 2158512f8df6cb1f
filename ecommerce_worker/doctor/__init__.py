"""Trying it: what a deployment needs to be well, each looked at in earnest."""
