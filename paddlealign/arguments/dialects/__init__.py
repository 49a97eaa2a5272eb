"""Other tools' configurations as our keys: one file a tool, each a pure function from what it says to a Reading."""
