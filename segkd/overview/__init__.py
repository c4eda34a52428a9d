"""What is to be done, what it costs and what this machine lacks for it: `segkd plan`."""
