"""Networks as Linen modules."""
