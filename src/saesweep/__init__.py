"""Train sparse autoencoders on a language model's activations and compare architectures at matched sparsity."""
