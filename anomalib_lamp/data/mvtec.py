"""MVTec: anomalib's MVTecAD under a shorter name."""

from anomalib.data import MVTecAD

from .files import require_readable_root


class MVTec(MVTecAD):
    """MVTec AD, the same as :class:`anomalib.data.MVTecAD`: same arguments, same results folder.

    anomalib 2.7 knows the data set as ``MVTecAD`` only. The command line does not find an alias by assignment, so
    this is a class of its own.

    Source: Bergmann et al., "MVTec AD: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection", 2019.
    """

    def prepare_data(self) -> None:
        """Download the data set unless it is there; raise ValueError first if anomalib would not read its folder."""
        require_readable_root(self.root, self.category)
        super().prepare_data()

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the data set in the results folder."""
        return "MVTecAD"
