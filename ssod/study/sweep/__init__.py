"""Many runs from one short file: what they are, where they run, what is still to do (docs/sweeps.md)."""
