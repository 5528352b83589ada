"""The stores of a soak, each with the faults that it can have."""
