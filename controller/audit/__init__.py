"""What makes the journal tell by itself whether somebody changed it: seals, and their verification."""
