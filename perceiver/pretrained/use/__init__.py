"""Using trained models: what each kind takes from a user, and what it gives back."""
