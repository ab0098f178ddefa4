"""Stand-in for Dify's api, worker, beat and migration: Dify 1.16's contract, none of its code (see README.md)."""
