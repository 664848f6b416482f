"""The dataset registry, and the rows of the files that its entries name."""
