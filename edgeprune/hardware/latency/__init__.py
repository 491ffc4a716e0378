"""The latency model: amounts of work per operator, coefficients of a board, and fitting them to measurements."""
