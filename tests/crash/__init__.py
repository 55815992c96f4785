"""The crash suite: legs, broker and stores are killed, cut off and slowed down while bars stream, then everything is counted."""
