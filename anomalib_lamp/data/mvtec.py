"""MVTec: anomalib's MVTecAD under a shorter name."""

from anomalib.data import MVTecAD


class MVTec(MVTecAD):
    """MVTec AD, the same as :class:`anomalib.data.MVTecAD`: same arguments, same results folder.

    anomalib 2.7 knows the data set as ``MVTecAD`` only. The command line does not find an alias by assignment, so
    this is a class of its own.

    Source: Bergmann et al., "MVTec AD: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection", 2019.
    """

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the data set in the results folder."""
        return "MVTecAD"
