"""How the client reaches a server: channels, when to try again, and what a call ended with."""
