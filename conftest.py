"""Makes the fixtures of lab hosts available to Molecule's verifiers and to the lab's own tests."""

pytest_plugins = ["lab.testing"]
