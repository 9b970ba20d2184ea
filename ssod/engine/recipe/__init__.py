"""A recipe at another size or length: images of a step, iterations, and what follows from them."""
