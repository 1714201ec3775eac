"""Generated birds on land and water."""
