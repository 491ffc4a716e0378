"""Sound files, and the front end that makes inputs of them."""
