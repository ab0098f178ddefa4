"""What `lab/prepare.py` is made of: one module a step, standard library only."""
