"""What an agent is told: files and flags, merged and validated; what is absent; reading it all again."""
