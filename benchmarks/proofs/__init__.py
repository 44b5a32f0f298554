"""Three claims about the trainers, each proved on a task small enough to know the truth of. `make proofs` runs them."""
