"""Tables, figures, the report page and notebook output, all made from what runs and studies store."""
