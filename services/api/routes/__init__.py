"""The routes: each translates a request, calls one thing of the library, and translates back."""
