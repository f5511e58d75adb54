"""What every service of credspec needs: signals, events, notification, protection."""
