"""One node's brain: owns the elections, routes events, returns effects."""
