"""The images of the report: changed predictions and top-activating images."""
