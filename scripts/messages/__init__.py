"""The translations of what the commands say: found in the source, kept in a .po file, compiled to a .mo file."""
