"""What can be wrong with a photograph or with an exported model."""


class InspectionError(ValueError):
    """A photograph that cannot be inspected; the text says what was expected, what came, and what to do."""


class ExportError(ValueError):
    """A folder that is not a complete, unaltered export of a version that this runtime reads."""
