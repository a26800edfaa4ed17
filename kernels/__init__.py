"""GPU operators and what they share: the contract, compilation, validation, timing, sweeping and tuned tables."""
