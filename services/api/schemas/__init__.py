"""What goes over the wire: the public contract, apart from the library's own values."""
