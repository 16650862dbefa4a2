"""The activator: answers routers which pod a held request may go to, and wakes the model that has none."""
