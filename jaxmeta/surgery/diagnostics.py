"""Why surgery helps, in the theory's own quantities, free from the Gram matrix."""
