"""What two people are promised of each other, of a relay, and of what lies between."""
