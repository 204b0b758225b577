"""A sweep in which everything occurs, and the sections of its report."""

from generated import make_failed, make_metrics, make_origin, make_record, make_sweep

EVIL = "<script>alert('$x^2$')</script> | *b*"
SECTIONS = (
    "How it was measured",
    "At a glance",
    "Quality",
    "Failed jobs",
    "Against the baseline",
    "Ranking",
    "Cost",
    "ROC curves",
    "By kind of defect",
    "Best and worst cases",
)


def mixed_records():
    """Return a sweep in which everything occurs: failures, missing values, hostile names, two machines."""
    traceback = f"Traceback (most recent call last):\n  File 'x.py'\nRuntimeError: <b>{EVIL}</b>"
    return [
        *make_sweep(data_sets=5, models=3, seeds=2),
        make_record("data00", EVIL, 0, metrics=make_metrics(0.7, pixel_AUROC=None)),
        make_record("data00", "Model00", 2, origin=make_origin(device="cuda:0", commit=None)),
        make_failed("data01", EVIL, 0, error=traceback, attempt=3),
    ]
