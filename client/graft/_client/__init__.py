"""What callers use: the blocking client and the asyncio client, and the operations that they share."""
