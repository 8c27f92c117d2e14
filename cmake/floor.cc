// Keeps a floor a library while its first rooms are being built.
